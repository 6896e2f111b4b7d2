export { beforeAbort } from '@gantry/rpc/before-abort.ts';
