// Questions to the user at the terminal.
import { readFileSync } from 'node:fs';

/** What was typed ahead of the next question. */
let ahead = '';

/** Asks for one line. @throws Error if there is no terminal, or the user gives up with ^C */
export async function askLine(question: string, options: { hidden?: boolean } = {}): Promise<string> {
  const { stdin, stderr } = process;
  if (!stdin.isTTY) throw new Error(`${question.replace(/:? *$/, '')}: there is no terminal to ask at`);
  const show = (text: string): void => {
    if (!options.hidden) stderr.write(text);
  };
  stderr.write(question);
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let typed = '';
  const take = (text: string): void => {
    const characters = [...text];
    for (const [index, character] of characters.entries()) {
      if (character === '\r' || character === '\n' || character === '\u0004') {
        ahead = characters.slice(index + 1).join('');
        resolve(typed);
        return;
      }
      if (character === '\u0003') {
        reject(new Error('interrupted'));
        return;
      }
      const erase = character === '\u007f' || character === '\b';
      if (erase && typed !== '') show('\b \b');
      if (!erase) show(character);
      typed = erase ? [...typed].slice(0, -1).join('') : typed + character;
    }
  };
  const ended = (): void => reject(new Error('the terminal is gone'));
  stdin.setRawMode(true);
  stdin.setEncoding('utf8').on('data', take).on('end', ended);
  const before = ahead;
  ahead = '';
  if (before !== '') take(before);
  stdin.resume();
  try {
    return await promise;
  } finally {
    stdin.off('data', take).off('end', ended).pause();
    stdin.setRawMode(false);
    stderr.write('\n');
  }
}

/** Asks for a password without showing it; where standard input is no terminal, takes the first line of that. */
export async function askPassword(): Promise<string> {
  if (!process.stdin.isTTY) return readFileSync(0, 'utf8').split('\n')[0] ?? '';
  return await askLine('Password: ', { hidden: true });
}
