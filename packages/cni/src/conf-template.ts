import { invalidArgument } from '@gantry/api';
import { type Token, tokens } from './template-tokens.ts';

/** What a template can tell of a node's pods. */
export interface TemplateValues {
  PodCIDR: string;
  PodCIDRRanges: readonly string[];
  Routes: readonly string[];
}

type Value = string | number | boolean | readonly string[] | TemplateValues;

interface Scope {
  dot: Value;
  variables: Record<string, Value>;
}

/**
 * Renders what `conf_template` needs of Go's text/template: fields, `.`, variables, `range` (with `$index, $value` and `else`), `if`,
 * `else if`, `else`, comments, trimmed white space, and the functions `index`, `len`, `eq`, `ne` and `not` of plain arguments.
 * @throws InvalidArgument `template: NAME:LINE: …` for anything else
 */
export function renderTemplate(name: string, source: string, values: TemplateValues): string {
  try {
    const list = tokens(source);
    const block = readBlock(list, { at: 0 }, false);
    return block.map((node) => node({ dot: values, variables: { $: values } })).join('');
  } catch (error) {
    throw invalidArgument(`template: ${name}:${(error as Error).message}`, error);
  }
}

type Node = (scope: Scope) => string;
type Expression = (scope: Scope) => Value;

interface Reader {
  at: number;
  /** The word, and what follows it, that ended the block last read. */
  end?: string;
  endLine?: number;
}

function readBlock(list: readonly Token[], reader: Reader, inside: boolean): Node[] {
  const nodes: Node[] = [];
  for (; reader.at < list.length; ) {
    const token = list[reader.at]!;
    reader.at += 1;
    if ('text' in token) {
      nodes.push(() => token.text);
      continue;
    }
    const [word = '', ...more] = token.action.split(/\s+/);
    const rest = token.action.slice(word.length).trim();
    if (word === 'end' || word === 'else') {
      if (!inside || (word === 'end' && more.length > 0)) throw new Error(`${token.line}: unexpected {{${word}}}`);
      reader.end = token.action;
      reader.endLine = token.line;
      return nodes;
    }
    if (word === 'if') nodes.push(readIf(list, reader, rest, token.line));
    else if (word === 'range') nodes.push(readRange(list, reader, rest, token.line));
    else {
      const value = readExpression(token.action, token.line);
      nodes.push((scope) => print(value(scope)));
    }
  }
  if (inside) throw new Error(`${list.at(-1)?.line ?? 1}: unexpected EOF`);
  return nodes;
}

function readIf(list: readonly Token[], reader: Reader, condition: string, line: number): Node {
  const test = readExpression(condition, line);
  const then = readBlock(list, reader, true);
  const otherwise = readElse(list, reader);
  return (scope) => (truth(test(scope)) ? then : otherwise).map((node) => node(scope)).join('');
}

function readElse(list: readonly Token[], reader: Reader): Node[] {
  if (reader.end === 'end') return [];
  const chained = /^else\s+if\s+([\s\S]+)$/.exec(reader.end ?? '');
  if (chained) return [readIf(list, reader, chained[1]!, reader.endLine ?? 1)];
  if (reader.end !== 'else') throw new Error(`${reader.endLine ?? 1}: {{${reader.end}}} is not supported here`);
  const block = readBlock(list, reader, true);
  if ((reader.end as string) !== 'end') throw new Error(`${reader.endLine ?? 1}: unexpected {{else}}`);
  return block;
}

function readRange(list: readonly Token[], reader: Reader, what: string, line: number): Node {
  const [, first, second, source = ''] = /^(?:(\$\w+)(?:\s*,\s*(\$\w+))?\s*:=\s*)?([\s\S]+)$/.exec(what) ?? [];
  const items = readExpression(source, line);
  const body = readBlock(list, reader, true);
  const otherwise = readElse(list, reader);
  return (scope) => {
    const all = items(scope);
    if (!Array.isArray(all)) throw new Error(`${line}: range can't iterate over ${print(all)}`);
    if (all.length === 0) return otherwise.map((node) => node(scope)).join('');
    const each = (item: string, index: number): string => {
      const variables = { ...scope.variables };
      // One name is the item's; of two the first is its place.
      if (first !== undefined) variables[first] = second === undefined ? item : index;
      if (second !== undefined) variables[second] = item;
      return body.map((node) => node({ dot: item, variables })).join('');
    };
    return (all as string[]).map(each).join('');
  };
}

const words = /"(?:[^"\\]|\\.)*"|`[^`]*`|[^\s"`]+/g;

function readExpression(text: string, line: number): Expression {
  const parts = text.match(words) ?? [];
  const [head, ...args] = parts;
  if (head === undefined) throw new Error(`${line}: missing value for command`);
  if (/[|()]|:=/.test(text.replace(words, (word) => (/^["`]/.test(word) ? '' : word))))
    throw new Error(`${line}: {{${text}}} is not supported: pipes, parentheses and assignments are not`);
  if (/^[a-z]\w*$/i.test(head) && head !== 'true' && head !== 'false') {
    const call = functions[head];
    if (!call) throw new Error(`${line}: function "${head}" not defined`);
    const operands = args.map((word) => readOperand(word, line));
    return (scope) =>
      call(
        operands.map((operand) => operand(scope)),
        line,
      );
  }
  if (args.length > 0) throw new Error(`${line}: can't give argument to non-function ${head}`);
  return readOperand(head, line);
}

function readOperand(word: string, line: number): Expression {
  if (/^"/.test(word)) return constant(JSON.parse(word) as string);
  if (/^`/.test(word)) return constant(word.slice(1, -1));
  if (/^-?\d+$/.test(word)) return constant(Number(word));
  if (word === 'true' || word === 'false') return constant(word === 'true');
  const [, root = '', fields = ''] = /^(\$\w*|)((?:\.\w+)*|\.)$/.exec(word) ?? [undefined, 'none'];
  if (root === 'none' || word === '') throw new Error(`${line}: unexpected ${JSON.stringify(word)}`);
  const names = fields.split('.').filter((name) => name !== '');
  return ({ dot, variables }) => {
    const start = root === '' ? dot : variables[root];
    if (start === undefined) throw new Error(`${line}: undefined variable "${root}"`);
    return names.reduce((value: Value, name) => fieldOf(value, name, line), start);
  };
}

function constant(value: Value): Expression {
  return () => value;
}

function fieldOf(value: Value, name: string, line: number): Value {
  if (typeof value === 'object' && !Array.isArray(value) && Object.hasOwn(value, name))
    return (value as unknown as Record<string, Value>)[name]!;
  throw new Error(`${line}: can't evaluate field ${name}`);
}

const functions: Record<string, (args: Value[], line: number) => Value> = {
  index([list, place], line) {
    const item = Array.isArray(list) && typeof place === 'number' ? (list as string[])[place] : undefined;
    if (item === undefined) throw new Error(`${line}: error calling index: index out of range: ${print(place ?? '')}`);
    return item;
  },
  len([list], line) {
    if (typeof list === 'string' || Array.isArray(list)) return list.length;
    throw new Error(`${line}: error calling len: it has none`);
  },
  eq: ([first, ...others]) => others.some((other) => other === first),
  ne: ([first, second]) => first !== second,
  not: ([value]) => !truth(value ?? false),
};

function truth(value: Value): boolean {
  return Array.isArray(value) ? value.length > 0 : Boolean(value);
}

function print(value: Value): string {
  return Array.isArray(value) ? `[${value.join(' ')}]` : String(value);
}
