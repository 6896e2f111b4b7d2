/** Few machines have any YAML: its reader is not loaded before. By its default export, the one that is there in a bundle too. */
export async function parseYaml(text: string): Promise<unknown> {
  const { default: yaml } = await import('yaml');
  return yaml.parse(text, { maxAliasCount: 100 });
}
