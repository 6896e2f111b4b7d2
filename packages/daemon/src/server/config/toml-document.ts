import { invalidArgument } from '@gantry/api';
import { parse, TomlError } from 'smol-toml';

/** One thing a TOML file says, with the text it says it in: for programs that change a file and keep its comments. */
export interface TomlStatement {
  /** `table`: a header `[x]`; `element`: a header `[[x]]`; `value`: `x = …`. */
  kind: 'table' | 'element' | 'value';
  /** From the top of the document. */
  path: string[];
  /** Of the first character, from 1. */
  line: number;
  /** Whole lines before it: comments and empty lines. */
  before: string[];
  /** Blanks that its line begins with. */
  indent: string;
  /** Of a value: its text, comments and line breaks inside it too. */
  text: string;
  /** A comment behind it on its last line, with its `#`. */
  comment: string;
}

export interface TomlDocument {
  statements: TomlStatement[];
  /** Lines after the last statement. */
  after: string[];
}

/** Reads a document. @throws InvalidArgument naming the line, if it is no TOML */
export function parseTomlDocument(text: string, file = ''): TomlDocument {
  try {
    parse(text, { integersAsBigInt: 'asNeeded' });
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    throw invalidArgument(`${file === '' ? '' : `${file}: `}line ${error.line}: ${error.message}`, error);
  }
  const lines = text.split(/\r?\n/);
  if (lines.at(-1) === '') lines.pop();
  const statements: TomlStatement[] = [];
  let before: string[] = [];
  let table: string[] = [];
  for (let at = 0; at < lines.length; ) {
    const line = lines[at]!;
    const trimmed = line.trim();
    if (trimmed === '' || trimmed.startsWith('#')) {
      before.push(line);
      at++;
      continue;
    }
    const first = at;
    const indent = line.slice(0, line.length - line.trimStart().length);
    if (trimmed.startsWith('[')) {
      const element = trimmed.startsWith('[[');
      const end = scan(trimmed, element ? 2 : 1, (character) => character === ']');
      table = keyPath(trimmed.slice(element ? 2 : 1, end));
      const comment = trimmed.slice(end + (element ? 2 : 1)).trim();
      const kind = element ? 'element' : 'table';
      statements.push({ kind, path: table, line: first + 1, before, indent, text: '', comment });
      at++;
    } else {
      const equals = scan(line, 0, (character) => character === '=');
      const path = [...table, ...keyPath(line.slice(0, equals))];
      const rest = [line.slice(equals + 1), ...lines.slice(at + 1)].join('\n');
      const { end, next } = endOfValue(rest);
      const comment = rest.slice(end, next).trim();
      const value = rest.slice(0, end).trim();
      statements.push({ kind: 'value', path, line: first + 1, before, indent, text: value, comment });
      at += rest.slice(0, next).split('\n').length;
    }
    before = [];
  }
  return { statements, after: before };
}

/** The parts of a key: `plugins."a.b"` → `plugins`, `a.b`. */
function keyPath(text: string): string[] {
  const path: string[] = [];
  let value: unknown = parse(`${text.trim()} = 0`);
  while (typeof value === 'object' && value !== null) {
    const [key] = Object.keys(value);
    path.push(key!);
    value = (value as Record<string, unknown>)[key!];
  }
  return path;
}

/** The place of the first character outside of strings that is looked for. */
function scan(text: string, from: number, found: (character: string) => boolean): number {
  for (let at = from; at < text.length; at++) {
    const character = text[at]!;
    if (character === '"' || character === "'") at = endOfString(text, at) - 1;
    else if (found(character)) return at;
  }
  return text.length;
}

/** Behind the string that begins at `from`; the document is known to be right. */
function endOfString(text: string, from: number): number {
  const quote = text[from]!;
  const triple = quote.repeat(3);
  const multiline = text.startsWith(triple, from);
  for (let at = from + (multiline ? 3 : 1); ; at++) {
    if (quote === '"' && text[at] === '\\') at++;
    else if (multiline && text.startsWith(triple, at)) {
      // Up to two quotes may stand right before the closing three.
      let end = at + 3;
      while (text[end] === quote) end++;
      return end;
    } else if (!multiline && text[at] === quote) return at + 1;
  }
}

/** Where the value that a text begins with ends, and the line break after it. */
function endOfValue(text: string): { end: number; next: number } {
  let depth = 0;
  let end = 0;
  for (let at = 0; at < text.length; at++) {
    const character = text[at]!;
    if (character === '#') {
      const lineEnd = text.indexOf('\n', at);
      if (depth === 0) return { end, next: lineEnd < 0 ? text.length : lineEnd };
      at = lineEnd - 1;
    } else if (character === '\n') {
      if (depth === 0) return { end, next: at };
    } else if (character === '"' || character === "'") {
      at = endOfString(text, at) - 1;
      end = at + 1;
    } else {
      if (character === '[' || character === '{') depth++;
      if (character === ']' || character === '}') depth--;
      if (character !== ' ' && character !== '\t' && character !== '\r') end = at + 1;
    }
  }
  return { end, next: text.length };
}
