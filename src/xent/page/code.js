// The batch as Python that can be pasted: NumPy alone, and torch. Both print the loss and gradient.

const IGNORE = -100;

const literal = (value) => (/^-?\d+$/.test(value) ? `${value}.0` : String(value));
const row = (values) => `[${values.map(literal).join(", ")}]`;
const matrix = (rows, close) => `[\n${rows.map((r) => `    ${row(r)},\n`).join("")}]${close}`;
const lines = (...parts) => `${parts.flat().filter((part) => part !== null).join("\n")}\n`;
const given = (condition, ...text) => (condition ? text : []);

function parts(batch) {
  return {
    classes: `[${batch.target.map((c, n) => (batch.ignored[n] ? IGNORE : c)).join(", ")}]`,
    weighted: batch.weight.some((w) => w !== 1),
    scaled: batch.temperature === 1 ? "" : ` / ${literal(batch.temperature)}`,
  };
}

/** NumPy code: the stable form, nothing but NumPy. */
export function numpy(batch) {
  const { classes, weighted, scaled } = parts(batch);
  const { smoothing, zLoss, reduction } = batch;
  const rowWeight = weighted ? "np.where(kept, weight[target], 0.0)" : "kept.astype(float)";
  return lines(
    "import numpy as np",
    "",
    `logits = np.array(${matrix(batch.logits, ")")}`,
    `target = np.array(${classes})  # ${IGNORE}: an ignored row`,
    given(weighted, `weight = np.array(${row(batch.weight)})  # of the classes`),
    "N, V = logits.shape",
    "",
    "# the target measure t and the weight of each row",
    `kept = target != ${IGNORE}`,
    "target = np.where(kept, target, 0)",
    smoothing
      ? `t = (1.0 - ${literal(smoothing)}) * np.eye(V)[target] + ${literal(smoothing)} / V`
      : "t = np.eye(V)[target]",
    `t = t * kept[:, None]${weighted ? " * weight" : ""}`,
    `row_weight = ${rowWeight}`,
    "",
    "# -log softmax without cancellation: the largest term is left out of the sum",
    "rows, k = np.arange(N), logits.argmax(axis=1)",
    `gap = (logits - logits[rows, k][:, None])${scaled}`,
    "e = np.exp(gap)",
    "e[rows, k] = 0.0",
    "tail = e.sum(axis=1, keepdims=True)",
    "e[rows, k] = 1.0",
    "surprisal = np.log1p(tail) - gap",
    "p = e / (1.0 + tail)",
    "",
    "loss = (t * surprisal).sum(axis=1)",
    "mass = t.sum(axis=1, keepdims=True)",
    "dlogits = mass * p - t",
    "others = np.where(np.arange(V) == k[:, None], 0.0, t).sum(axis=1)",
    "at_k = others - mass[:, 0] * (tail / (1.0 + tail))[:, 0]  # p_k - 1 would lose its digits",
    "dlogits[rows, k] = np.where(p[rows, k] > 0.5, at_k, dlogits[rows, k])",
    given(
      zLoss,
      `lse = logits[rows, k]${scaled} + np.log1p(tail[:, 0])`,
      `loss = loss + ${literal(zLoss)} * row_weight * lse**2`,
      `dlogits = dlogits + 2.0 * ${literal(zLoss)} * (row_weight * lse)[:, None] * p`,
    ),
    given(scaled, `dlogits = dlogits${scaled}`),
    given(
      reduction === "mean",
      "loss = loss.sum() / row_weight.sum()",
      "dlogits[kept] /= row_weight.sum()",
    ),
    given(reduction === "sum", "loss = loss.sum()"),
    "print(loss)",
    "print(dlogits)",
  );
}

/** torch code: F.cross_entropy and autograd. */
export function torch(batch) {
  const { classes, weighted, scaled } = parts(batch);
  const { smoothing, zLoss, reduction } = batch;
  const summed = reduction === "none" ? "z" : reduction === "sum" ? "z.sum()" : null;
  const options = [
    `logits${scaled}`,
    "target",
    ...given(weighted, "weight=weight"),
    ...given(smoothing, `label_smoothing=${literal(smoothing)}`),
    ...given(reduction !== "mean", `reduction="${reduction}"`),
  ].join(", ");
  return lines(
    "import torch",
    "import torch.nn.functional as F",
    "",
    `logits = torch.tensor(${matrix(batch.logits, ", dtype=torch.float64, requires_grad=True)")}`,
    `target = torch.tensor(${classes})  # ${IGNORE}: an ignored row`,
    given(weighted, `weight = torch.tensor(${row(batch.weight)}, dtype=torch.float64)`),
    "",
    `loss = F.cross_entropy(${options})`,
    given(
      zLoss,
      `kept = (target != ${IGNORE}).double()`,
      `row_weight = kept${weighted ? " * weight[target.clamp(min=0)]" : ""}`,
      `z = ${literal(zLoss)} * row_weight * torch.logsumexp(logits${scaled}, dim=1) ** 2`,
      `loss = loss + ${summed ?? "z.sum() / row_weight.sum()"}`,
    ),
    `${reduction === "none" ? "loss.sum()" : "loss"}.backward()`,
    "print(loss)",
    "print(logits.grad)",
  );
}
