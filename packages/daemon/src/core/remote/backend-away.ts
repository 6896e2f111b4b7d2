import { Code, StatusError } from '@gantry/api';

/**
 * Unavailable, because the process behind a proxy cannot be reached. Other reasons for Unavailable (a ref that another writer
 * holds) are waited out by some callers; this one is told at once.
 */
export class BackendAway extends StatusError {
  constructor(message: string, cause: unknown) {
    super(Code.Unavailable, message, { cause });
    this.name = 'BackendAway';
  }
}
