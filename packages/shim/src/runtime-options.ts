import { fromBinary } from '@bufbuild/protobuf';
import type { Any } from '@bufbuild/protobuf/wkt';
import { invalidArgument, typeNameOf } from '@gantry/api';
import { OptionsSchema as RuncOptionsSchema } from '@gantry/api/gen/types/runc/options/oci_pb.js';
import { OptionsSchema as GenericOptionsSchema } from '@gantry/api/gen/types/runtimeoptions/v1/api_pb.js';

/** What a container's runtime options ask for, whichever message they came in. */
export interface RuntimeOptions {
  /** The OCI runtime's name or path; '' for the default one. */
  binaryName: string;
  /** Where the OCI runtime keeps its state; '' for the default. The namespace is added below it. */
  root: string;
  systemdCgroup: boolean;
  noPivotRoot: boolean;
  noNewKeyring: boolean;
  /** A cgroup that the shim shall enter; '' for none. */
  shimCgroup: string;
  ioUid: number;
  ioGid: number;
  criuImagePath: string;
  criuWorkPath: string;
}

const defaults: RuntimeOptions = {
  binaryName: '',
  root: '',
  systemdCgroup: false,
  noPivotRoot: false,
  noNewKeyring: false,
  shimCgroup: '',
  ioUid: 0,
  ioGid: 0,
  criuImagePath: '',
  criuWorkPath: '',
};

/** Reads the options of a create request. @throws StatusError InvalidArgument for a message of another runtime */
export function readRuntimeOptions(any: Any | undefined): RuntimeOptions {
  const name = any ? typeNameOf(any) : '';
  if (!any || name === '') return { ...defaults };
  if (name === RuncOptionsSchema.typeName) {
    const options = fromBinary(RuncOptionsSchema, any.value);
    return Object.fromEntries(
      Object.entries(defaults).map(([key, value]) => [key, options[key as keyof RuntimeOptions] ?? value]),
    ) as unknown as RuntimeOptions;
  }
  // CRI's generic options name a configuration file for other runtimes; nothing in them is meant for us.
  if (name === GenericOptionsSchema.typeName) return { ...defaults };
  throw invalidArgument(`unsupported runtime options type ${any.typeUrl}`);
}
