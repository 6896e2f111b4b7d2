export { type Credentials, type CredentialsProvider, type CredentialsRequest, mergeScopes } from './authorizer.ts';
export { type Challenge, parseChallenges } from './challenge.ts';
export type { BlobSource } from './fetch-blob.ts';
export { RangeIgnoredError, type RangeOptions } from './fetch-range.ts';
export * from './hosts.ts';
export { hostsFromDirectory, parseHostsFile } from './hosts-files.ts';
export { AuthorizationError, UnexpectedStatusError } from './http-error.ts';
export type { PushOptions, PushOutcome } from './push.ts';
export { type FetchOptions, manifestTypes, RegistryClient, type RegistryClientOptions } from './registry-client.ts';
