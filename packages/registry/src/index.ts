export { type Credentials, type CredentialsProvider, mergeScopes } from './authorizer.ts';
export { type Challenge, parseChallenges } from './challenge.ts';
export type { BlobSource } from './fetch-blob.ts';
export * from './hosts.ts';
export { hostsFromDirectory, parseHostsFile } from './hosts-files.ts';
export { AuthorizationError, UnexpectedStatusError } from './http-error.ts';
export type { PushOptions, PushOutcome } from './push.ts';
export { manifestTypes, RegistryClient, type RegistryClientOptions } from './registry-client.ts';
