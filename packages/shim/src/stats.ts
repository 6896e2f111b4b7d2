import type { Any } from '@bufbuild/protobuf/wkt';
import { unimplemented } from '@gantry/api';
import type { Container } from './container.ts';

/** A container's cgroup metrics. */
export async function statsOf(_container: Container): Promise<Any> {
  throw unimplemented('stats');
}
