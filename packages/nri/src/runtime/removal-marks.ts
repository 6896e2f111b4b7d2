/** A key with a dash before it says that what it names is to be removed. */
export const isRemoval = (key: string): boolean => key.startsWith('-');
export const removalMark = (key: string): string => `-${key}`;
export const withoutMark = (key: string): string => (isRemoval(key) ? key.slice(1) : key);
