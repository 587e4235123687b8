// A user's rows from a CSV file: one header line of names, then numbers.

/** Return {count, x, y, features}: x [count, features] and y [count] as float64. Throws for what is no number. */
export function readRows(text, target) {
  const lines = text.replace(/^\uFEFF/, "").split(/\r?\n/).filter((line) => line.trim() !== "");
  const columns = lines[0].split(",").map((cell) => cell.trim());
  const place = columns.indexOf(target);
  if (place < 0) throw new Error(`no column ${target}; the file has ${columns.join(", ")}`);
  const rows = lines.slice(1).map((line, index) => numbers(line, columns.length, index + 2));
  const x = rows.flatMap((row) => row.filter((_, column) => column !== place));
  const y = rows.map((row) => row[place]);
  return { count: rows.length, features: columns.length - 1, x: Float64Array.from(x), y: Float64Array.from(y) };
}

function numbers(line, count, number) {
  const cells = line.split(",").map((cell) => cell.trim());
  // Number("") is 0
  const values = cells.map((cell) => (cell === "" ? NaN : Number(cell)));
  if (values.length !== count || !values.every(Number.isFinite)) throw new Error(`line ${number} is no row of ${count} numbers`);
  return values;
}

/** Return some rows, in this order, as arrays of the batch. */
export function take(rows, order) {
  const x = new Float64Array(order.length * rows.features);
  const y = new Float64Array(order.length);
  order.forEach((row, place) => {
    x.set(rows.x.subarray(row * rows.features, (row + 1) * rows.features), place * rows.features);
    y[place] = rows.y[row];
  });
  return { count: order.length, features: rows.features, x, y };
}
