/** As in YAML 1.1, which Go's readers still know: `0644`. */
const octal = {
  identify: () => false,
  default: true,
  tag: 'tag:yaml.org,2002:int',
  test: /^[-+]?0[0-7]+$/,
  resolve: (text: string) => Number.parseInt(text, 8),
} as const;

/**
 * The first document of a text. Few machines have any YAML: its reader is not loaded before; by its default export, the one that is there
 * in a bundle too. @throws Error for what is none
 */
export async function parseYaml(text: string): Promise<unknown> {
  const { default: yaml } = await import('yaml');
  const [document] = yaml.parseAllDocuments(text, { merge: true, customTags: (tags) => [octal, ...tags] });
  if (!document || !('errors' in document)) return null;
  const [problem] = document.errors;
  if (problem) throw problem;
  return document.toJS({ maxAliasCount: 100 });
}
