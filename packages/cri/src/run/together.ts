/**
 * What several pieces of work come to that do not wait for each other. If some fail, the first failure, but only once all have come to an
 * end: what the others have made can then be undone.
 */
export async function together<T extends readonly unknown[]>(
  ...work: { readonly [K in keyof T]: Promise<T[K]> | T[K] }
): Promise<T> {
  await Promise.allSettled(work);
  return (await Promise.all(work)) as unknown as T;
}
