// Which characters of a text speak for a label, and by how much?
//
// Spans are in code points, and a string in UTF-16 units: an array of code points is what both agree on.

/** Return runs of a text: [text, strength], -1 (against) to 1 (for); a feature's share is spread over its characters. */
export function runs(text, features, label) {
  const points = Array.from(text);
  const strengths = new Float64Array(points.length);
  for (const { spans, shares } of features) {
    const length = spans.reduce((sum, [start, stop]) => sum + stop - start, 0);
    for (const [start, stop] of spans) {
      for (let i = start; i < Math.min(stop, points.length); i++) strengths[i] += shares[label] / length;
    }
  }
  const most = strengths.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-9);
  const steps = Array.from(strengths, (x) => Math.round((x / most) * 5) / 5);
  const out = [];
  points.forEach((point, i) => {
    if (i && steps[i] === steps[i - 1]) out.at(-1)[0] += point;
    else out.push([point, steps[i]]);
  });
  return out;
}

/** Return the features that say most about a label, those that can be read first. */
export function strongest(features, label, n) {
  const known = features.filter(({ kind }) => kind === "word" || kind === "pair");
  return known.toSorted((a, b) => Math.abs(b.shares[label]) - Math.abs(a.shares[label])).slice(0, n);
}
