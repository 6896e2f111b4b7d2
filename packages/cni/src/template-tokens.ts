/** The first half of Go's text/template: text and actions, with the white space that `{{-` and `-}}` ask to be dropped. */

export type Token = { line: number } & ({ text: string } | { action: string });

/** @throws Error that says at which line */
export function tokens(source: string): Token[] {
  const found: Token[] = [];
  let line = 1;
  let rest = source;
  let trimNext = false;
  while (rest !== '') {
    const start = rest.indexOf('{{');
    let text = start < 0 ? rest : rest.slice(0, start);
    const lines = count(text);
    const trims = start >= 0 && /^\{\{-\s/.test(rest.slice(start, start + 4));
    if (trimNext) text = text.trimStart();
    if (trims) text = text.trimEnd();
    if (text !== '') found.push({ line, text });
    line += lines;
    if (start < 0) break;
    const match = /^\{\{(?:-\s)?([\s\S]*?)(\s-)?\}\}/.exec(rest.slice(start));
    if (!match) throw new Error(`${line}: unclosed action`);
    const [whole, body = '', after] = match;
    const action = body.trim();
    const comment = action.startsWith('/*');
    if (comment && !action.endsWith('*/')) throw new Error(`${line}: unclosed comment`);
    if (!comment) found.push({ line, action });
    line += count(whole);
    trimNext = after !== undefined;
    rest = rest.slice(start + whole.length);
  }
  return found;
}

function count(text: string): number {
  return text.split('\n').length - 1;
}
