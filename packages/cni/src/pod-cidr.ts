import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { StatusError } from '@gantry/api';
import { renderTemplate } from './conf-template.ts';
import { isIpv6, parseCidr } from './ip-address.ts';

/** The name under which others know that it is a container runtime's own. */
const fileName = '10-containerd-net.conflist';

/** Address ranges of a node's pods, separated by commas, and the routes that they need. @throws StatusError `get routes: …` */
export function podRanges(podCidr: string): { ranges: string[]; routes: string[] } {
  const ranges = podCidr.split(',').map((range) => range.trim());
  try {
    const six = ranges.map((range) => isIpv6(parseCidr(range).ip));
    return { ranges, routes: [...(six.includes(false) ? ['0.0.0.0/0'] : []), ...(six.includes(true) ? ['::/0'] : [])] };
  } catch (error) {
    throw StatusError.wrap(error, 'get routes');
  }
}

/** Makes a network's configuration of a template. It is there whole, or not at all. @throws StatusError */
export async function writePodNetwork(
  directory: string,
  template: string,
  { ranges, routes }: { ranges: readonly string[]; routes: readonly string[] },
): Promise<void> {
  const failure = `failed to parse cni config template ${JSON.stringify(template)}`;
  const source = await readFile(template, 'utf8').catch((error) => {
    throw StatusError.wrap(error, failure);
  });
  const values = { PodCIDR: ranges[0] ?? '', PodCIDRRanges: ranges, Routes: routes };
  const file = path.join(directory, fileName);
  let text: string;
  try {
    text = renderTemplate(path.basename(template), source, values);
  } catch (error) {
    throw StatusError.wrap(error, `failed to generate cni config file ${JSON.stringify(file)}`);
  }
  await mkdir(directory, { recursive: true, mode: 0o755 });
  // Its ending is none that is read.
  const draft = path.join(directory, `.${fileName}.draft`);
  try {
    await writeFile(draft, text, { mode: 0o644 });
    await rename(draft, file);
  } catch (error) {
    await rm(draft, { force: true });
    throw StatusError.wrap(error, `failed to generate cni config file ${JSON.stringify(file)}`);
  }
}
