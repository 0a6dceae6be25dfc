// Which words of a text speak for a label, and by how much?
//
// Spans are in code points, and a string in UTF-16 units: an array of code points is what both agree on.

const STEPS = 5; // shades
const words = new Intl.Segmenter(undefined, { granularity: "word" });

/** Return runs of a text: [text, strength], -1 (against) to 1 (for). A feature's share is spread over its characters,
    and a word is as strong as its characters are in the mean. */
export function runs(text, features, label) {
  const strengths = spread(text, features, label);
  const parts = [];
  let at = 0;
  for (const { segment, isWordLike } of words.segment(text)) {
    const own = strengths.slice(at, (at += Array.from(segment).length));
    parts.push([segment, isWordLike ? own.reduce((a, b) => a + b, 0) / own.length : 0]);
  }
  const most = parts.reduce((a, [, strength]) => Math.max(a, Math.abs(strength)), 1e-9);
  return joined(parts.map(([part, strength]) => [part, Math.round((strength / most) * STEPS) / STEPS]));
}

function spread(text, features, label) {
  const strengths = new Float64Array(Array.from(text).length);
  for (const { spans, shares } of features) {
    const length = spans.reduce((sum, [start, stop]) => sum + stop - start, 0);
    for (const [start, stop] of spans) {
      for (let i = start; i < Math.min(stop, strengths.length); i++) strengths[i] += shares[label] / length;
    }
  }
  return strengths;
}

/** Put runs of one strength together: a long text has fewer elements so. */
function joined(parts) {
  const out = [];
  for (const [part, strength] of parts) {
    if (out.length && out.at(-1)[1] === strength && strength === 0) out.at(-1)[0] += part;
    else out.push([part, strength]);
  }
  return out;
}

/** Return what says most about a label and can be read: words, pairs, and each field as a whole. */
export function strongest(features, label, n) {
  const known = features.filter(({ kind }) => ["word", "pair", "cross"].includes(kind));
  const all = [...known.map((each) => ({ ...each, share: each.shares[label] })), ...wholes(features, label)];
  return all.toSorted((a, b) => Math.abs(b.share) - Math.abs(a.share)).slice(0, n);
}

/** A field is a category, words and bins: what they add together is what it says. */
function wholes(features, label) {
  const found = new Map();
  for (const { kind, field, shares, known } of features) {
    if (!field || kind === "cross") continue;
    const whole = found.get(field) ?? { field, share: 0, known: false };
    found.set(field, { ...whole, share: whole.share + shares[label], known: whole.known || known !== false });
  }
  return [...found.values()];
}
