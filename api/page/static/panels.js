// Which curves a run is read by, and what each is for.

/** `band`: [low, high] metrics, or a function of a bucket; `points`: drawn as points; `stack`: drawn on top of those before. */
export function panels(spec) {
  const graders = spec.rewards.map((grader) => grader.name ?? grader.type);
  return [
    {
      title: "Learning",
      panels: [
        {
          title: "Reward",
          wide: true,
          help: "Mean over completions; the band is one standard deviation within a group; points are held-out rows.",
          series: [
            { name: "reward", label: "training", spread: "reward_std" },
            { name: "eval/reward", label: "held out", points: true },
          ],
        },
        {
          title: "Reward by grader",
          help: "Mean score of each grader before its weight.",
          series: graders.map((grader) => ({ name: `rewards/${grader}/mean`, label: grader })),
        },
        {
          title: "Groups without signal",
          help: "Share of groups whose completions all have one reward: they have nothing to teach.",
          series: [{ name: "frac_reward_zero_std", label: "share of groups" }],
        },
      ],
    },
    {
      title: "Stability",
      panels: [
        {
          title: "Gradient norm",
          help: "Before clipping, relative to an on-policy token's multiplier, so that algorithms can be compared.",
          series: [{ name: "grad_norm/on_policy", label: "on-policy scale" }, { name: "grad_norm", label: "raw" }],
        },
        {
          title: "Importance ratio",
          help: "Learner over the policy before the step; exactly 1 with one update a batch.",
          series: [{ name: "ratio/mean", label: "mean", band: ["ratio/min", "ratio/max"] }],
        },
        {
          title: "How far the policy moved",
          help: "Mean |log-ratio|, nats. Its drift comes before a collapse.",
          series: [{ name: "ratio/log_abs_mean", label: "mean |log-ratio|" }],
        },
        {
          title: "Saturation and clipping",
          help: "Share of tokens where the ratio control holds the update back.",
          series: [
            { name: "mhpo/psi_saturation", label: "ψ saturated" },
            { name: "clip_ratio/region_mean", label: "clipped" },
            { name: "clip_ratio/low_mean", label: "clipped low" },
            { name: "clip_ratio/high_mean", label: "clipped high" },
            { name: "sapo/saturation", label: "gate saturated" },
            { name: "cispo_clip_ratio", label: "capped" },
          ],
        },
        {
          title: "Survival weight by side",
          help: "exp(−ζ) over tokens whose ratio is above, or below, 1.",
          series: [
            { name: "mhpo/survival_mean/positive_shift", label: "ratio above 1" },
            { name: "mhpo/survival_mean/negative_shift", label: "ratio below 1" },
          ],
        },
        {
          title: "KL",
          help: "From the base model, and of the learner from the rollout engine; nats a token.",
          series: [{ name: "kl", label: "from the base model" }, { name: "kl/rollout", label: "learner from engine" }],
        },
        { title: "Entropy", help: "Of the policy at trained tokens, nats.", series: [{ name: "entropy", label: "entropy" }] },
        {
          title: "Sampler and learner",
          help: "Difference of their log-probabilities, nats; the probe is the proof that the engine has the learner's weights.",
          series: [
            { name: "sampling/sampling_logp_difference/mean", label: "mean" },
            { name: "sampling/sampling_logp_difference/max", label: "largest" },
            { name: "sampling/probe_difference", label: "weight probe" },
          ],
        },
        {
          title: "Loss and learning rate",
          help: "The loss of a policy gradient need not fall.",
          series: [{ name: "loss", label: "loss" }, { name: "learning_rate", label: "learning rate" }],
        },
      ],
    },
    {
      title: "Completions",
      panels: [
        {
          title: "Length",
          help: "Tokens; the band is from the shortest to the longest.",
          series: [
            {
              name: "completions/mean_length",
              label: "mean",
              band: ["completions/min_length", "completions/max_length"],
            },
            { name: "completions/mean_terminated_length", label: "mean, ended by itself" },
          ],
        },
        {
          title: "Truncated",
          help: "Share of completions cut at rollout.max_new_tokens.",
          series: [{ name: "completions/clipped_ratio", label: "share cut" }],
        },
      ],
    },
    {
      title: "Speed",
      panels: [
        {
          title: "Time of a step",
          help: "Seconds, stacked.",
          series: [
            { name: "time/rollout", label: "rollout", stack: true },
            { name: "time/rewards", label: "rewards", stack: true },
            { name: "time/learner", label: "learner", stack: true },
            { name: "time/sync", label: "weight sync", stack: true },
            { name: "time/other", label: "other", stack: true },
          ],
        },
        {
          title: "Tokens a second",
          help: "Completion tokens over the step, and over the rollout alone.",
          series: [
            { name: "perf/tokens_per_second", label: "step" },
            { name: "perf/rollout_tokens_per_second", label: "rollout" },
          ],
        },
        { title: "Memory", help: "Peak, MiB.", series: [{ name: "perf/memory_peak_mb", label: "peak" }] },
      ],
    },
  ];
}

/** A panel for each benchmark that these metrics have a score of. */
export function benchmarkPanels(names) {
  const benchmarks = names.map((name) => /^eval\/(.+)\/avg$/.exec(name)?.[1]).filter(Boolean);
  return benchmarks.map((name) => ({
    title: `Benchmark ${name}`,
    help: "avg@n of each scored checkpoint with its 95 % interval; step 0 is the model before training.",
    series: [{ name: `eval/${name}/avg`, label: "avg@n", band: [`eval/${name}/ci_low`, `eval/${name}/ci_high`], dotted: true }],
  }));
}
