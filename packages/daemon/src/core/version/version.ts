// What this daemon says it is: the containerd release whose API it speaks, and its own version as build metadata.

/** The build puts the commit here. */
declare const GANTRY_REVISION: string | undefined;

export const version: { readonly version: string; readonly revision: string } = {
  version: 'v2.3.4+gantry.0.1.0',
  revision: typeof GANTRY_REVISION === 'string' ? GANTRY_REVISION : '',
};
