// Numbers, times and sizes as people read them.

export const number = (value) => (value === null || value === undefined || !Number.isFinite(value) ? "–" : Number(value.toPrecision(5)).toLocaleString("en"));

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let power = 0;
  while (count >= 1000 && power < units.length - 1) [count, power] = [count / 1000, power + 1];
  return `${power === 0 ? count : count.toPrecision(3)} ${units[power]}`;
}

export function seconds(span) {
  if (span < 0) span = 0;
  if (span < 10) return `${span.toFixed(1)} s`;
  if (span < 120) return `${Math.round(span)} s`;
  if (span < 7200) return `${Math.round(span / 60)} min`;
  if (span < 172800) return `${Math.round(span / 3600)} h`;
  return `${Math.round(span / 86400)} days`;
}

export const ago = (then, now) => (then === null || then === undefined ? "never" : now - then < 2 ? "just now" : `${seconds(now - then)} ago`);
export const moment = (then) => (then === null ? "–" : new Date(then * 1000).toLocaleString());
export const short = (digest) => digest.slice(0, 12);
export const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
