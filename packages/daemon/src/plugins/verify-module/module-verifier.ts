import { StatusError, unknown } from '@gantry/api';
import type { Descriptor } from '@gantry/oci';
import type { Logger } from '../../core/log/logger.ts';
import type { RequestContext } from '../../core/request-context.ts';
import { TrustedModule } from '../../core/trust/trusted-module.ts';
import type { ImageVerifier, Judgement } from '../../core/verification/image-verifier.ts';

export interface VerifierModule {
  /** As judgements name it. */
  name: string;
  file: string;
  /** Milliseconds for one judgement. */
  timeoutMs: number;
  /** Handed to the module as they are. */
  options: unknown;
}

/** As much of a reason as of a program's standard output. */
const maxReason = 32 << 10;

/**
 * Asks ES modules, all of which have to say yes. A module exports
 * `verifyImage({ name, descriptor, options }) → { ok, reason }`, plain or by promise.
 */
export class ModuleVerifier implements ImageVerifier {
  readonly #modules: readonly { settings: VerifierModule; module: TrustedModule }[];

  constructor(modules: readonly VerifierModule[], log: Logger) {
    this.#modules = modules.map((settings) => ({
      settings,
      module: new TrustedModule({ file: settings.file, name: settings.name, log }),
    }));
  }

  async verifyImage(ctx: RequestContext, name: string, descriptor: Descriptor): Promise<Judgement> {
    const reasons: string[] = [];
    for (const { settings, module } of this.#modules) {
      const { timeoutMs, options } = settings;
      const call = { timeoutMs, signal: ctx.signal };
      let judgement: Judgement;
      try {
        judgement = readJudgement(await module.call('verifyImage', { name, descriptor, options }, call));
      } catch (error) {
        throw StatusError.wrap(error, `failed to call verifier ${settings.name}`);
      }
      const { ok, reason } = judgement;
      if (!ok) return { ok, reason: `verifier ${settings.name} rejected image: ${reason}` };
      reasons.push(`${settings.name} => ${reason}`);
    }
    return { ok: true, reason: reasons.join(', ') };
  }

  async close(): Promise<void> {
    await Promise.all(this.#modules.map(({ module }) => module.close()));
  }
}

function readJudgement(value: unknown): Judgement {
  const { ok, reason = '' } = (value ?? {}) as Partial<Judgement>;
  if (typeof ok !== 'boolean' || typeof reason !== 'string') {
    throw unknown('its answer is not { ok: boolean, reason: string }');
  }
  const text = reason.trim();
  return { ok, reason: text.length > maxReason ? `${text.slice(0, maxReason)}(reason truncated)` : text };
}
