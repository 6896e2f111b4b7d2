/** What a command or flag answers that containerd's ctr has and this one does not have. */
export function notYet(what: string): Error {
  return new Error(`not yet: ${what}`);
}
