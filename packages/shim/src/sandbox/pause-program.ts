import { unimplemented } from '@gantry/api';

const base = 0x400000;
const headerSize = 64;
const programHeaderSize = 56;
const start = headerSize + programHeaderSize;
const machines: Partial<Record<string, { id: number; code(actionAt: number): Buffer }>> = {
  x64: { id: 62, code: x86Code },
  arm64: { id: 183, code: armCode },
};

/**
 * A static program of 200 bytes that holds namespaces and does nothing: it has the kernel collect its children (SIGCHLD ignored), as the first
 * process of a pid namespace has to, and then sleeps for ever. Written here because a shim has no image to take one from.
 * @throws StatusError Unimplemented where no code for the machine is here
 */
export function pauseProgram(architecture: string = process.arch): Buffer {
  const machine = machines[architecture];
  if (!machine) throw unimplemented(`no pause program for ${architecture}: give the sandbox a process in its spec`);
  const length = machine.code(0).length;
  const code = machine.code(start + length);
  // struct sigaction: handler SIG_IGN, no flags, no restorer, no mask.
  const action = Buffer.alloc(32);
  action[0] = 1;
  const size = BigInt(start + length + action.length);
  const header = Buffer.alloc(start);
  header.write('\x7fELF\x02\x01\x01', 0, 'latin1');
  header.writeUInt16LE(2, 16); // an executable
  header.writeUInt16LE(machine.id, 18);
  header.writeUInt32LE(1, 20);
  header.writeBigUInt64LE(BigInt(base + start), 24); // where it begins
  header.writeBigUInt64LE(BigInt(headerSize), 32); // its program headers
  header.writeUInt16LE(headerSize, 52);
  header.writeUInt16LE(programHeaderSize, 54);
  header.writeUInt16LE(1, 56);
  header.writeUInt32LE(1, headerSize); // to be loaded
  header.writeUInt32LE(5, headerSize + 4); // readable, executable
  header.writeBigUInt64LE(BigInt(base), headerSize + 16);
  header.writeBigUInt64LE(BigInt(base), headerSize + 24);
  header.writeBigUInt64LE(size, headerSize + 32);
  header.writeBigUInt64LE(size, headerSize + 40);
  header.writeBigUInt64LE(0x1000n, headerSize + 48);
  return Buffer.concat([header, code, action]);
}

function x86Code(actionAt: number): Buffer {
  const address = Buffer.alloc(4);
  address.writeUInt32LE(base + actionAt);
  return Buffer.from([
    ...[0xb8, 13, 0, 0, 0], // mov eax, rt_sigaction
    ...[0xbf, 17, 0, 0, 0], // mov edi, SIGCHLD
    ...[0xbe, ...address], // mov esi, the action
    ...[0x31, 0xd2], // xor edx, edx
    ...[0x41, 0xba, 8, 0, 0, 0], // mov r10d, 8
    ...[0x0f, 0x05], // syscall
    ...[0xb8, 34, 0, 0, 0], // mov eax, pause
    ...[0x0f, 0x05], // syscall
    ...[0xeb, 0xf7], // and again
  ]);
}

function armCode(actionAt: number): Buffer {
  const move = (register: number, value: number) => 0xd2800000 + value * 32 + register;
  const distance = actionAt - (start + 8);
  const words = [
    move(8, 134), // rt_sigaction
    move(0, 17), // SIGCHLD
    0x10000000 + (distance % 4) * 2 ** 29 + Math.floor(distance / 4) * 32 + 1, // adr x1, the action
    move(2, 0),
    move(3, 8),
    0xd4000001, // svc
    ...[0, 1, 2, 3, 4].map((register) => move(register, 0)),
    move(8, 73), // ppoll of nothing, for ever
    0xd4000001, // svc
    0x14000000 + 2 ** 26 - 7, // and again
  ];
  const code = Buffer.alloc(words.length * 4);
  for (const [index, word] of words.entries()) code.writeUInt32LE(word, index * 4);
  return code;
}
