/** The names by which the devices of `--gpus` are asked for: of whichever vendor has CDI specifications here. @throws Error if none has */
export function gpuDevices(known: readonly string[], gpus: readonly string[]): string[] {
  const bad = gpus.find((gpu) => !/^-?\d+$/.test(gpu));
  if (bad !== undefined)
    throw new Error(`invalid value "${bad}" for flag -gpus: strconv.ParseInt: parsing "${bad}": invalid syntax`);
  const vendors = new Set(known.map((name) => name.slice(0, name.indexOf('/'))));
  const vendor = ['nvidia.com', 'amd.com'].find((name) => vendors.has(name));
  if (!vendor)
    throw new Error(
      'detect GPU vendor failed: no known GPU vendor detected in CDI specs, only AMD and NVIDIA are supported',
    );
  return gpus.map((gpu) => `${vendor}/gpu=${gpu}`);
}
