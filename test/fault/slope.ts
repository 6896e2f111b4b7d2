/** Whether something grows: the straight line through what was measured, by least squares. */
export interface Line {
  /** By how much it grows from one measurement to the next. */
  slope: number;
  /** How far that may be from the truth, by how much the measurements scatter: one standard error. */
  error: number;
}

/** @param values measured at equal distances; fewer than two have no slope */
export function lineThrough(values: readonly number[]): Line {
  const count = values.length;
  if (count < 2) return { slope: 0, error: 0 };
  const middle = (count - 1) / 2;
  const mean = values.reduce((sum, value) => sum + value, 0) / count;
  let covariance = 0;
  let variance = 0;
  for (const [index, value] of values.entries()) {
    covariance += (index - middle) * (value - mean);
    variance += (index - middle) ** 2;
  }
  const slope = covariance / variance;
  const residual = values.reduce((sum, value, index) => sum + (value - mean - slope * (index - middle)) ** 2, 0);
  const error = count > 2 ? Math.sqrt(residual / (count - 2) / variance) : 0;
  return { slope, error };
}
