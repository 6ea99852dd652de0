"""The autotuner: TVM's MetaSchedule searches the plan, a part of the network at a time, under budgets of memory and
power (docs/tuning.md)."""
