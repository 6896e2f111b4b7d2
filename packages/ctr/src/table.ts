/**
 * Aligns columns as Go's text/tabwriter does for containerd's ctr: each cell is padded to the widest of its column plus
 * `padding`; a column with `\t` as padding character grows to a multiple of eight.
 */
export interface TableStyle {
  /** Least width of a column, with its padding. */
  minWidth: number;
  padding: number;
  /** Pads with tabs, to multiples of this many columns; absent: with spaces. */
  tabWidth?: number;
}

/** `tabwriter.NewWriter(w, 4, 8, 4, ' ', 0)`, as most lists are printed. */
export const wide: TableStyle = { minWidth: 4, padding: 4 };
/** `tabwriter.NewWriter(w, 1, 8, 1, ' ', 0)`, as the lists of images and snapshots are. */
export const narrow: TableStyle = { minWidth: 1, padding: 1 };
/** `tabwriter.NewWriter(w, 1, 8, 1, '\t', 0)`, as the list of content is. */
export const tabbed: TableStyle = { minWidth: 1, padding: 1, tabWidth: 8 };

/** Rows of cells as text. Every cell but the last of its row ends a column, as a tab does; so a row that ends with '' ends with spaces. */
export function table(rows: readonly (readonly string[])[], style: TableStyle = wide): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.slice(0, -1).forEach((cell, column) => {
      let width = Math.max(style.minWidth, displayWidth(cell) + style.padding);
      if (style.tabWidth) width = Math.ceil(width / style.tabWidth) * style.tabWidth;
      widths[column] = Math.max(widths[column] ?? 0, width);
    });
  }
  const lines = rows.map((row) =>
    row
      .map((cell, column) => {
        if (column === row.length - 1) return cell;
        const gap = widths[column]! - displayWidth(cell);
        return cell + (style.tabWidth ? '\t'.repeat(Math.ceil(gap / style.tabWidth)) : ' '.repeat(gap));
      })
      .join(''),
  );
  return `${lines.join('\n')}\n`;
}

function displayWidth(text: string): number {
  return [...text].length;
}
