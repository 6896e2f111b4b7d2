import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { TransferProgress } from '@gantry/client';
import { type ProgressOutput, withProgress } from './progress.ts';
import { ProgressModel } from './progress-model.ts';
import { briefTime, clip, drawProgress, shortName, summaryOf } from './progress-picture.ts';

const mebi = 1 << 20;
const hex = 'ea337e77bcd3'.padEnd(64, '0');

function report(event: string, name: string, progress = 0, total = 0, parents: string[] = []): TransferProgress {
  const descriptor = name.includes('sha256:') ? { mediaType: 'x', digest: `sha256:${hex}`, size: total } : undefined;
  return { event, name, progress, total, parents, descriptor };
}

/** An image of a manifest and two layers, of which one has come halfway in two seconds. */
function halfway(): ProgressModel {
  const model = new ProgressModel(0);
  const manifest = `manifest-sha256:${hex}`;
  model.take(report('Pulling from OCI Registry (example.com/app:1)', ''), 0);
  model.take(
    { ...report('fetching image content', 'example.com/app:1'), descriptor: { mediaType: 'x', digest: '', size: 0 } },
    0,
  );
  model.take(report('complete', manifest, 700, 700, ['example.com/app:1']), 0);
  model.take(report('already exists', `layer-sha256:${'1'.repeat(64)}`, 0, 3 * mebi, [manifest]), 0);
  for (let second = 0; second <= 2; second++)
    model.take(
      report('downloading', `layer-sha256:${'2'.repeat(64)}`, second * 5 * mebi, 20 * mebi, [manifest]),
      second * 1000,
    );
  return model;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences begin with one
const bare = (lines: string[]): string[] => lines.map((line) => line.replace(/\x1b\[\d*m/g, ''));

describe('progress', () => {
  it('shows state, amount, rate and time left of each layer, and of the whole', () => {
    const lines = bare(drawProgress(halfway(), 'example.com/app:1', { columns: 120, rows: 24 }, 2000));
    assert.deepEqual(
      lines.map((line) => line.replace(/\+{2,}/, '+').replace(/-{2,}/, '-')),
      [
        'Pulling from OCI Registry (example.com/app:1)',
        'example.com/app:1          fetching image content',
        '└──manifest (ea337e77bcd3) complete       |+| 700.0 B',
        '   ├──layer (111111111111) already exists |+| 3.0 MiB',
        '   └──layer (222222222222) downloading    |+-| 10.0 MiB/20.0 MiB  5.0 MiB/s  2s',
        'elapsed: 2.0 s  total: 10.0 MiB (5.0 MiB/s)  left: 2s',
      ],
    );
  });

  it('is never wider nor higher than the terminal', () => {
    const model = halfway();
    for (let layer = 0; layer < 60; layer++)
      model.take(
        report(
          layer < 50 ? 'complete' : 'downloading',
          `layer-sha256:${String(layer).padStart(64, 'f')}`,
          mebi,
          2 * mebi,
          [],
        ),
        2000,
      );
    for (let columns = 4; columns <= 160; columns += 3) {
      const lines = bare(drawProgress(model, 'example.com/app:1', { columns, rows: 20 }, 2000));
      for (const line of lines) assert.ok([...line].length < columns, `${[...line].length} on ${columns}: ${line}`);
      assert.ok(lines.length < 20, `${lines.length} lines`);
    }
    const lines = bare(drawProgress(model, 'x', { columns: 100, rows: 20 }, 2000));
    assert.match(lines.at(-2)!, /^… and \d+ more, \d+ of them done$/);
    assert.equal(lines.filter((line) => line.includes(' downloading ')).length, 11, 'what moves is shown first');
  });

  it('keeps the state on narrow terminals and leaves out the bar', () => {
    const lines = bare(drawProgress(halfway(), 'example.com/app:1', { columns: 60, rows: 24 }, 2000));
    assert.match(lines[4]!, /^ {3}└──layer \(2{12}\) downloading/);
    assert.ok(!lines.some((line) => line.includes('|+')));
  });

  it('tells a layer that stands still, and counts no byte twice', () => {
    const model = halfway();
    assert.match(drawProgress(model, '', { columns: 120, rows: 24 }, 9000)[4]!, /stalled 7s/);
    const name = `layer-sha256:${'2'.repeat(64)}`;
    model.take(report('complete', name, 20 * mebi, 20 * mebi), 9500);
    model.take(report('extracting', name, 5 * mebi, 20 * mebi), 9600);
    model.take(report('extracted', name, 20 * mebi, 20 * mebi), 9700);
    assert.equal(model.moved, 20 * mebi + 700);
    assert.match(summaryOf(model, 10_000, true), /^elapsed: 10.0 s {2}total: 20.0 MiB \(2.0 MiB\/s\)$/);
  });

  it('lets no name of a registry command the terminal', () => {
    const model = new ProgressModel(0);
    model.take(report('downloading', 'evil\x1b]0;x\x07\r\n', 1, 2, ['nobody']), 0);
    const picture = drawProgress(model, 't', { columns: 80, rows: 24 }, 0).join('');
    assert.ok(!/\p{C}/u.test(bare([picture])[0]!), 'only colours');
  });

  it('shortens the names of blobs, and leaves those of images', () => {
    const names = [
      `layer-sha256:${hex}`,
      `manifest-v1@sha256:${hex}`,
      `sha256:${hex}`,
      `example.com/app@sha256:${hex}`,
    ];
    assert.deepEqual(names.map(shortName), [
      'layer (ea337e77bcd3)',
      'manifest (ea337e77bcd3)',
      'blob (ea337e77bcd3)',
      `example.com/app@sha256:${hex}`,
    ]);
  });

  it('cuts lines without counting colours, and says times briefly', () => {
    assert.equal(clip('\x1b[32mabcdef\x1b[0m', 3), '\x1b[32mabc\x1b[0m');
    assert.deepEqual([0.2, 59.5, 125, 3780, 1e9].map(briefTime), ['1s', '1m00s', '2m05s', '1h03m', 'days']);
  });

  it('writes plain lines where there is no terminal, and the total at the end', async () => {
    let text = '';
    const write = (part: string) => {
      text += part;
    };
    const output = { write } as unknown as ProgressOutput;
    await withProgress(
      'example.com/app:1',
      async (tell) => {
        for (const event of ['waiting', 'downloading', 'downloading', 'complete'])
          tell(report(event, `layer-sha256:${hex}`, event === 'complete' ? mebi : 0, mebi));
      },
      output,
    );
    assert.match(
      text,
      /^layer \(ea337e77bcd3\): downloading 1.0 MiB\nlayer \(ea337e77bcd3\): complete 1.0 MiB\nexample.com\/app:1: done, elapsed: \d+\.\d s {2}total: 1.0 MiB \(.*\/s\)\n$/,
    );
    text = '';
    await assert.rejects(
      withProgress('x', () => Promise.reject(new Error('broken')), output),
      /broken/,
    );
    assert.equal(text, '');
  });

  it('draws in place on a terminal and ends below the picture', async () => {
    let text = '';
    const write = (part: string) => {
      text += part;
    };
    const output = { isTTY: true, columns: 70, rows: 10, write } as unknown as ProgressOutput;
    await withProgress(
      'example.com/app:1',
      async (tell) => {
        tell(report('downloading', `layer-sha256:${hex}`, 1000, 2000));
        await new Promise((resolve) => setTimeout(resolve, 250));
        tell(report('complete', `layer-sha256:${hex}`, 2000, 2000));
      },
      output,
    );
    assert.ok(text.includes('\x1b[3A\r'), 'goes back up over its three lines');
    assert.match(text.slice(-80), /example\.com\/app:1: done, elapsed: /);
    assert.ok(text.endsWith('\x1b[K\n\x1b[J'));
  });
});
