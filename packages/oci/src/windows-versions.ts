/**
 * Which Windows images a Windows host runs, by the versions of both (`major.minor.build.revision`). Gantry unpacks no Windows
 * images; pulls and mirrors choose among them.
 */

interface WindowsVersion {
  major: number;
  minor: number;
  build: number;
}

/** Long-term releases from which on hosts also run images of older builds, down to the release before theirs. */
const stableReleases = [20348, 26100];

/** undefined for what is no version of three numbers at least. */
function parse(text: string): WindowsVersion | undefined {
  const found = /^(\d{1,3})\.(\d{1,3})\.(\d{1,5})(?:\.|$)/.exec(text);
  if (!found) return undefined;
  const [major, minor, build] = found.slice(1).map(Number) as [number, number, number];
  return major < 256 && minor < 256 && build < 65536 ? { major, minor, build } : undefined;
}

/** Whether a host of version `host` runs an image of version `image`. Where one of them says nothing, it does. */
export function windowsVersionFits(host: string | undefined, image: string | undefined): boolean {
  const ours = parse(host ?? '');
  if (!ours || !image) return true;
  const theirs = parse(image);
  if (!theirs || ours.major !== theirs.major || ours.minor !== theirs.minor) return false;
  const [firstStable = 0] = stableReleases;
  if (ours.build < firstStable) return ours.build === theirs.build;
  const oldest = stableReleases.findLast((release) => release < ours.build) ?? firstStable;
  return oldest <= theirs.build && theirs.build <= ours.build;
}
