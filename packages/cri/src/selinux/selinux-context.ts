import { invalidArgument } from '@gantry/api';
import type { SELinuxOption } from '@gantry/api/gen/cri/v1/api_pb.js';

/** A security context: `user:role:type` and, where the policy has levels, `:level`. */
export interface SelinuxContext {
  user: string;
  role: string;
  type: string;
  level: string;
}

/** @throws InvalidArgument for text that is none */
export function parseContext(text: string): SelinuxContext {
  const [user, role, type, ...level] = text.split(':');
  if (!user || !role || !type) throw invalidArgument(`invalid SELinux label ${JSON.stringify(text)}`);
  return { user, role, type, level: level.join(':') };
}

export function formatContext({ user, role, type, level }: SelinuxContext): string {
  return [user, role, type, ...(level === '' ? [] : [level])].join(':');
}

const category = 'c\\d{1,4}(\\.c\\d{1,4})?';
const levelForm = new RegExp(`^s\\d(-s\\d)?(:${category}(,${category})*)?$`);

/** What of a context is asked for. @throws InvalidArgument for a level that is none */
export function askedContext(options: SELinuxOption | undefined): Partial<SelinuxContext> {
  if (!options) return {};
  const { user, role, type, level } = options;
  if (level !== '' && !levelForm.test(level)) throw invalidArgument(`the format of 'level' "${level}" is not correct`);
  return { ...(user && { user }), ...(role && { role }), ...(type && { type }), ...(level && { level }) };
}
