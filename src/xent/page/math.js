// Cross entropy of a batch, its gradient and its steps, in float64; entropies of two distributions.
//
// With k the largest logit and s the tail, the sum of the other exponentials relative to it:
//
//     surprisal_c = -log p_c = log1p(s) - (x_c - x_k) / T      both terms >= 0: nothing cancels
//     1 - p_k     = s / (1 + s)                                never formed from p_k
//
// T is the temperature. All is in nats; no function changes its arguments.

const sum = (values) => values.reduce((total, value) => total + value, 0);

/** What follows from one row of logits: softmax, surprisals, log-sum-exp, the largest, its tail. */
export function statistics(logits, temperature = 1) {
  const k = logits.indexOf(Math.max(...logits));
  const gap = logits.map((x) => (x - logits[k]) / temperature);
  const powers = gap.map(Math.exp);
  const tail = sum(powers.filter((_, c) => c !== k));
  const excess = Math.log1p(tail);
  return {
    k,
    tail,
    powers,
    p: powers.map((power) => power / (1 + tail)),
    surprisal: gap.map((d) => excess - d),
    lse: logits[k] / temperature + excess,
  };
}

/** The target measure of a row: class weight and label smoothing are part of it; 0 if ignored. */
export function measure(target, ignored, weight, smoothing) {
  return weight.map((w, c) => {
    if (ignored) return 0;
    return w * ((c === target ? 1 - smoothing : 0) + smoothing / weight.length);
  });
}

/** Loss of a row of target measure t, and its derivative by the logits. */
function rowLoss(found, t, rowWeight, { temperature, zLoss }) {
  const mass = sum(t);
  const ofLse = 2 * zLoss * rowWeight * found.lse;
  const loss = sum(t.map((share, c) => (share ? share * found.surprisal[c] : 0)));
  const gradient = t.map((share, c) => {
    let difference = mass * found.p[c] - share;
    if (c === found.k && found.p[c] > 0.5) {
      const others = sum(t.filter((_, other) => other !== c));
      difference = others - (mass * found.tail) / (1 + found.tail);
    }
    return (difference + ofLse * found.p[c]) / temperature;
  });
  return { loss: loss + zLoss * rowWeight * found.lse ** 2, gradient };
}

/**
 * Losses, reduced loss and gradient of a batch.
 *
 * `batch` has logits (N, V), target (N,), ignored (N,), weight (V,), temperature, smoothing, zLoss
 * and reduction. The gradient is that of the reduced loss, of the sum where nothing is reduced.
 */
export function batchLoss(batch) {
  const rows = batch.logits.map((logits, n) => {
    const found = statistics(logits, batch.temperature);
    const t = measure(batch.target[n], batch.ignored[n], batch.weight, batch.smoothing);
    const rowWeight = batch.ignored[n] ? 0 : batch.weight[batch.target[n]];
    return { ...found, t, rowWeight, ...rowLoss(found, t, rowWeight, batch) };
  });
  const total = sum(rows.map((row) => row.loss));
  const weight = sum(rows.map((row) => row.rowWeight));
  const divisor = batch.reduction === "mean" ? weight : 1;
  const gradient = rows.map((row, n) =>
    row.gradient.map((slope) => (batch.ignored[n] ? 0 : slope / divisor)),
  );
  return { rows, total, divisor, loss: total / divisor, gradient };
}

/** The logits after one step of gradient descent. */
export function descend(logits, gradient, rate) {
  return logits.map((row, n) => row.map((x, c) => x - rate * gradient[n][c]));
}

/** Entropy of p. */
export function entropy(p) {
  return sum(p.map((share) => (share > 0 ? -share * Math.log(share) : 0)));
}

/** Cross entropy of p and q: infinite where q is 0 and p is not. */
export function crossEntropy(p, q) {
  return sum(p.map((share, c) => (share > 0 ? -share * Math.log(q[c]) : 0)));
}

/**
 * KL divergence of p from q, which sum to the same: sum p (d - log1p(d)) with d = (q - p) / p.
 *
 * No term is negative, so nothing cancels where p and q are nearly equal.
 */
export function klDivergence(p, q) {
  return sum(p.map((share, c) => (share > 0 ? share * excessOf((q[c] - share) / share) : q[c])));
}

/** d - log1p(d), >= 0; near 0 by its series, where the difference would lose its digits. */
function excessOf(d) {
  if (Math.abs(d) > 0.1) return d - Math.log1p(d);
  let total = 0;
  for (let n = 18; n >= 2; n -= 1) total = total * -d + 1 / n;
  return total * d * d;
}
