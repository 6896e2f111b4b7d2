import { isTable, tomlPath } from '../../core/plugin/config-check.ts';
import { migrateConfig } from './migrate.ts';
import { printTomlValue } from './print-toml.ts';
import { parseTomlDocument, type TomlStatement } from './toml-document.ts';

/** Where a file says something, and where the newest version has it. */
export interface MovedSetting {
  path: string[];
  line: number;
  /** None: the newest version does not know it any more. */
  to: string[][];
}

export interface MigratedText {
  text: string;
  settings: MovedSetting[];
}

type Table = Record<string, unknown>;

/** A stand-in for the value of one statement, to see where the migration puts it. */
const token = (index: number) => `\u0000${index}`;

/** A setting that an empty table is given meanwhile, so that it is moved as a full one would be. */
const filler = '\u0000';

/** As the last part of a place: the value has become the one entry of an array there. */
const entry = '\u0001';

/** Their entries name plugins, which have other names now: these values are migrated, not only moved. */
const named = new Set(['disabled_plugins', 'required_plugins']);

/**
 * The text of a configuration file in the newest version. Comments, order and the way values are written stay; what has moved
 * takes its comments along, what is gone leaves them out. @throws InvalidArgument for a file that is no TOML or of an unknown version
 */
export function migrateText(source: string, raw: Table, file: string): MigratedText {
  const { statements, after } = parseTomlDocument(source, file);
  const leaves = statements.filter((statement, index) => isLeaf(statement, statements, index));
  const standIns: Table = {};
  for (const [index, { path }] of leaves.entries()) {
    const value = path.length === 1 && (named.has(path[0]!) || path[0] === 'version') ? raw[path[0]!] : token(index);
    put(standIns, leaves[index]!.kind === 'table' ? [...path, filler] : path, value);
  }
  const migrated = migrateConfig(standIns, file);
  const places = new Map<string, string[][]>();
  collect(migrated, [], places);

  const out = new Writer(statements);
  const settings: MovedSetting[] = [];
  for (const [index, leaf] of leaves.entries()) {
    const [key = ''] = leaf.path;
    if (leaf.path.length === 1 && key === 'version') continue;
    if (leaf.path.length === 1 && named.has(key)) {
      out.value(leaf, leaf.path, printTomlValue(migrated[key]));
      settings.push({ path: leaf.path, line: leaf.line, to: [leaf.path] });
      continue;
    }
    const found = places.get(token(index)) ?? [];
    const isEntry = found.some((target) => target.at(-1) === entry);
    const targets = leaf.kind === 'table' || isEntry ? found.map((target) => target.slice(0, -1)) : found;
    settings.push({ path: leaf.path, line: leaf.line, to: targets });
    for (const target of targets) {
      if (leaf.kind === 'element') out.elements(leaf.path, target, statements);
      else if (leaf.kind === 'table') out.table(leaf, target);
      else out.value(leaf, target, isEntry ? `[${leaf.text}]` : leaf.text);
    }
  }
  const version = leaves.find(({ path }) => path.length === 1 && path[0] === 'version');
  return { text: out.print(Number(migrated['version']), version, after), settings };
}

/** Values; tables with nothing in them; and arrays of tables as a whole, by their first header. */
function isLeaf(statement: TomlStatement, all: readonly TomlStatement[], index: number): boolean {
  if (statement.kind === 'table' && all.some((one) => one !== statement && startsWith(one.path, statement.path))) {
    return false;
  }
  const earlier = all.slice(0, index);
  const array = earlier.find((one) => one.kind === 'element' && startsWith(statement.path, one.path));
  return array === undefined;
}

function startsWith(path: readonly string[], prefix: readonly string[]): boolean {
  return prefix.every((part, at) => path[at] === part);
}

function put(tree: Table, path: readonly string[], value: unknown): void {
  let table = tree;
  for (const part of path.slice(0, -1)) {
    table[part] ??= {};
    table = table[part] as Table;
  }
  table[path.at(-1)!] = value;
}

function collect(value: unknown, path: string[], places: Map<string, string[][]>): void {
  if (isTable(value)) for (const [key, inner] of Object.entries(value)) collect(inner, [...path, key], places);
  else if (Array.isArray(value)) for (const inner of value) collect(inner, [...path, entry], places);
  else if (typeof value === 'string' && value.startsWith('\u0000')) {
    places.set(value, [...(places.get(value) ?? []), path]);
  }
}

interface Section {
  before: string[];
  indent: string;
  comment: string;
  lines: string[];
}

/** Puts the statements together again, table by table, in the order in which they first come. */
class Writer {
  readonly #headers: Map<string, TomlStatement>;
  readonly #sections = new Map<string, Section>();
  readonly #arrays: string[] = [];

  constructor(statements: readonly TomlStatement[]) {
    this.#headers = new Map(
      statements.filter(({ kind }) => kind === 'table').map((one) => [tomlPath(one.path), one] as const),
    );
  }

  value(from: TomlStatement, target: readonly string[], text: string): void {
    const oldTable = this.#headers.get(tomlPath(from.path.slice(0, -1)));
    const { lines } = this.#section(target.slice(0, -1), oldTable);
    lines.push(...from.before, `${from.indent}${tomlPath([target.at(-1)!])} = ${text}${beside(from.comment)}`);
  }

  /** A table with nothing in it. */
  table(from: TomlStatement, target: readonly string[]): void {
    this.#section(target, from);
  }

  /** An array of tables with all that belongs to it, under its new name. */
  elements(path: readonly string[], target: readonly string[], statements: readonly TomlStatement[]): void {
    let table: readonly string[] = [];
    for (const one of statements) {
      if (!startsWith(one.path, path)) continue;
      const moved = [...target, ...one.path.slice(path.length)];
      this.#arrays.push(...one.before);
      let text = `${tomlPath(moved.slice(table.length))} = ${one.text}`;
      if (one.kind !== 'value') {
        table = moved;
        text = one.kind === 'element' ? `[[${tomlPath(moved)}]]` : `[${tomlPath(moved)}]`;
      }
      this.#arrays.push(`${one.indent}${text}${beside(one.comment)}`);
    }
  }

  #section(path: readonly string[], header: TomlStatement | undefined): Section {
    const name = tomlPath(path);
    let section = this.#sections.get(name);
    if (!section) {
      // A header's comments go where the first of its settings goes.
      const { before = [''], indent = '', comment = '' } = header ?? {};
      if (header) this.#headers.set(tomlPath(header.path), { ...header, before: [''], comment: '' });
      section = { before, indent, comment, lines: [] };
      this.#sections.set(name, section);
    }
    return section;
  }

  print(version: number, old: TomlStatement | undefined, after: readonly string[]): string {
    const out = [...(old?.before ?? []), `version = ${version}${beside(old?.comment ?? '')}`];
    const top = this.#sections.get('');
    if (top) out.push(...top.lines);
    for (const [name, { before, indent, comment, lines }] of this.#sections) {
      if (name !== '') out.push(...before, `${indent}[${name}]${beside(comment)}`, ...lines);
    }
    out.push(...this.#arrays, ...after);
    return `${out.join('\n')}\n`;
  }
}

function beside(comment: string): string {
  return comment === '' ? '' : ` ${comment}`;
}
