// The uniform numbers of dropout: 32-bit integer hashing ("lowbias32"), number for number those of shoal.plan.noise.

/** Return `size` numbers in [0, 1), multiples of 2**-24: those of noise input `index` at a step of a training. */
export function uniform(seed: number, step: number, index: number, size: number): Float32Array {
  const key = keyOf(seed, step, index);
  const numbers = new Float32Array(size);
  for (let place = 0; place < size; place += 1) {
    numbers[place] = (mix((mix((place ^ key) >>> 0) + key) >>> 0) >>> 8) * 2 ** -24;
  }
  return numbers;
}

function mix(given: number): number {
  let word = (given ^ (given >>> 16)) >>> 0;
  word = Math.imul(word, 0x7feb352d) >>> 0;
  word = (word ^ (word >>> 15)) >>> 0;
  word = Math.imul(word, 0x846ca68b) >>> 0;
  return (word ^ (word >>> 16)) >>> 0;
}

function keyOf(seed: number, step: number, index: number): number {
  const parts = [seed % 2 ** 32, Math.floor(seed / 2 ** 32) % 2 ** 32, step % 2 ** 32, index];
  return parts.reduce((key, part) => (mix((key ^ part) >>> 0) + 1) >>> 0, 0);
}
