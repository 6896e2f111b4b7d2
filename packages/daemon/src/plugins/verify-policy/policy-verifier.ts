import { failedPrecondition } from '@gantry/api';
import { type Descriptor, parseReference } from '@gantry/oci';
import type { RequestContext } from '../../core/request-context.ts';
import type { ImageSource, ImageVerifier, Judgement } from '../../core/verification/image-verifier.ts';
import { findSignatures } from './find-signatures.ts';
import { matchesRepository, type PolicyRule, repositoryKey } from './policy.ts';
import { describeKey, readSigningKey, type SigningKey } from './public-key.ts';

export interface PolicyOptions {
  rules: readonly PolicyRule[];
  /** For images that no rule is about. */
  defaultAction: 'allow' | 'deny';
  /** Milliseconds for all signatures of an image. */
  timeoutMs: number;
}

/** Of the signatures that do not count, so many are told of. */
const maxProblems = 5;

/**
 * Judges images by rules about their repositories, the first that fits decides: allow, deny, or require signatures made with
 * certain keys. Works offline: no transparency log, no certificates.
 */
export class PolicyVerifier implements ImageVerifier {
  readonly #options: PolicyOptions;

  constructor(options: PolicyOptions) {
    this.#options = options;
  }

  async verifyImage(
    ctx: RequestContext,
    name: string,
    descriptor: Descriptor,
    source?: ImageSource,
  ): Promise<Judgement> {
    const { rules, defaultAction, timeoutMs } = this.#options;
    const repository = repositoryKey(name);
    for (const [index, rule] of rules.entries()) {
      const pattern = rule.repositories.find((candidate) => matchesRepository(candidate, repository));
      if (pattern === undefined) continue;
      const which = `rule ${index + 1} (${pattern})`;
      if (rule.action === 'allow') return { ok: true, reason: `${which} allows it` };
      if (rule.action === 'deny') return { ok: false, reason: `${which} denies it` };
      if (!source) throw failedPrecondition(`${which} requires a signature, and there is no registry to ask for one`);
      const clock = AbortSignal.timeout(timeoutMs);
      const signal = ctx.signal ? AbortSignal.any([ctx.signal, clock]) : clock;
      try {
        const { ok, reason } = await judgeSignatures(rule, name, descriptor, source, signal);
        return { ok, reason: `${which} ${reason}` };
      } catch (error) {
        if (clock.aborted) throw failedPrecondition(`${which}: no signatures in ${timeoutMs} ms`, error);
        throw error;
      }
    }
    return { ok: defaultAction === 'allow', reason: `no rule is about ${repository}: ${defaultAction} by default` };
  }
}

async function judgeSignatures(
  rule: PolicyRule,
  name: string,
  image: Descriptor,
  source: ImageSource,
  signal: AbortSignal,
): Promise<Judgement> {
  const waiting = new Map<string, SigningKey>();
  for (const file of rule.keys) {
    const key = readSigningKey(file);
    waiting.set(key.fingerprint, key);
  }
  const wanted = rule.required === 1 ? 'a signature' : `signatures of ${rule.required} keys`;
  if (waiting.size < rule.required) throw failedPrecondition(`requires ${wanted}, but its keys are the same`);
  const repository = rule.signatureRepository === '' ? parseReference(name).locator : rule.signatureRepository;
  const expected = { digest: image.digest, annotations: rule.annotations };
  const good: string[] = [];
  const problems: string[] = [];
  for await (const signature of findSignatures(source, repository, image, expected, signal)) {
    const what = `signature ${signature.digest} in ${signature.where}`;
    let problem: string | undefined = `${what} is by ${good.length > 0 ? 'no further key' : 'none of the keys'}`;
    for (const key of [...waiting.values()]) {
      const wrong = await signature.check(key);
      if (!wrong) {
        waiting.delete(key.fingerprint);
        good.push(`${what} by ${describeKey(key)}`);
        problem = undefined;
        break;
      }
      if (wrong.byKey) problem = `${what} by ${describeKey(key)}: ${wrong.problem}`;
      else if (wrong.problem !== 'it is not by this key') problem = `${what}: ${wrong.problem}`;
    }
    if (good.length === rule.required) return { ok: true, reason: `requires ${wanted}: ${good.join('; ')}` };
    if (problem !== undefined) problems.push(problem);
  }
  const named = rule.keys.length === 1 ? `key ${rule.keys[0]}` : `one of the keys ${rule.keys.join(', ')}`;
  const found = [...good, ...problems.slice(0, maxProblems)];
  if (problems.length > maxProblems) found.push(`and ${problems.length - maxProblems} more`);
  return {
    ok: false,
    reason: `requires ${wanted} by ${named}: ${found.length === 0 ? `none found in ${repository}` : found.join('; ')}`,
  };
}
