import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defaultAppArmorProfile } from './apparmor-default.ts';

test('the default profile of a name', () => {
  const text = defaultAppArmorProfile('gantry-default');
  assert.match(text, /^profile gantry-default flags=\(attach_disconnected,mediate_deleted\) \{$/m);
  assert.match(text, /^ {2}ptrace \(trace,read,tracedby,readby\) peer=gantry-default,$/m);
  assert.match(text, /^ {2}deny mount,$/m);
  // Every rule ends with a comma, and every bracket is closed.
  for (const line of text.split('\n').filter((each) => /^ {2}[a-z]/.test(each))) assert.match(line, /,$/);
  assert.equal(text.split('{').length, text.split('}').length);
});

test('a name that would be more than one', () => {
  for (const name of ['', 'a b', 'a{', '../x', 'a\nprofile b']) assert.throws(() => defaultAppArmorProfile(name));
});
