// Which labels does somebody mean who writes a part of a name, or writes one wrongly?

const fold = (text) => text.normalize("NFKC").toLocaleLowerCase();

/** Return the names that have what was written anywhere in them: those that are it, begin with it, have a word that
    begins with it, and the others, each in the order given. Nothing written: all. */
export function matching(names, written) {
  const wanted = fold(written.trim());
  if (!wanted) return [...names];
  const kinds = [[], [], [], []];
  for (const name of names) {
    const folded = fold(name);
    const at = folded.indexOf(wanted);
    if (at < 0) continue;
    const isWord = at === 0 || new RegExp(`[^\\p{L}\\p{N}]${escaped(wanted)}`, "u").test(folded);
    kinds[folded === wanted ? 0 : at === 0 ? 1 : isWord ? 2 : 3].push(name);
  }
  return kinds.flat();
}

const escaped = (text) => text.replace(/[\\^$.*+?()[\]{}|/-]/g, (sign) => `\\u{${sign.codePointAt(0).toString(16)}}`);

/** Return the names most like what was written, the likest first: by how many pairs of letters they share (Dice). */
export function nearest(names, written, n) {
  const own = pairs(written);
  return names.map((name) => [name, likeness(own, pairs(name))]).filter(([, like]) => like > 0)
    .sort(([, a], [, b]) => b - a).slice(0, n).map(([name]) => name);
}

function pairs(text) {
  const letters = Array.from(` ${fold(text.trim())} `);
  const found = new Map();
  for (let i = 1; i < letters.length; i++) {
    const pair = letters[i - 1] + letters[i];
    found.set(pair, (found.get(pair) ?? 0) + 1);
  }
  return found;
}

function likeness(a, b) {
  let shared = 0;
  for (const [pair, n] of a) shared += Math.min(n, b.get(pair) ?? 0);
  const all = [...a.values(), ...b.values()].reduce((sum, n) => sum + n, 0);
  return all ? (2 * shared) / all : 0;
}
