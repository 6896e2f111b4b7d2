/** What this client is; the revision is put in by the build. */
declare const GANTRY_REVISION: string | undefined;

export const clientVersion = {
  version: '0.1.0',
  revision: typeof GANTRY_REVISION === 'string' ? GANTRY_REVISION : '',
  node: process.version,
};
