"""The sentences that say where a table's numbers come from."""

from __future__ import annotations

from collections.abc import Collection

from hiplora.report.evidence import Evidence

PARITY = 0.01  # by how much deployed parameters may differ between methods that are compared


def caption(evidence: Evidence) -> str:
    """Backbone, data, scale, changed settings, hardware, software: the last two from the records there are."""
    setting = evidence.setting
    parts = [f"Backbone {setting.backbone}, {setting.data}, scale {setting.scale}."]
    if setting.changed:
        parts.append(f"Not under the settings of conf/, but with {', '.join(setting.changed)}.")
    if not evidence.records:
        return " ".join([*parts, "No run of this table is there yet."])
    return " ".join([*parts, *_machines(evidence)])


def _machines(evidence: Evidence) -> list[str]:
    environments = [record["environment"] for record in evidence.records]
    hardware = _distinct(f"{env['device']}, {env['cores']} cores, {env['platform']}" for env in environments)
    software = _distinct(_software(env) for env in environments)
    commits = _distinct(_commit(env) for env in environments)
    return [f"Hardware: {hardware}.", f"Software: {software}.", f"Source: {commits}."]


def _software(environment: dict) -> str:
    versions = environment["versions"]
    named = [f"{name} {versions[name]}" for name in ("torch", "transformers", "peft") if versions.get(name)]
    return ", ".join([f"Python {environment['python']}", *named])


def _commit(environment: dict) -> str:
    commit = environment.get("git_commit")
    if not commit:
        return "commit unknown"
    return f"commit {commit[:10]}" + (" with uncommitted changes" if environment.get("git_dirty") else "")


def _distinct(texts) -> str:
    """Each text once, with the number of runs where there are several."""
    counts: dict[str, int] = {}
    for text in texts:
        counts[text] = counts.get(text, 0) + 1
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{text} ({count} runs)" for text, count in counts.items())


def paper_note(evidence: Evidence) -> str | None:
    """What the paper's column may and may not be compared with; None where the table has no such column."""
    if evidence.paper_value(evidence.experiment.name) is None:
        return None
    source = evidence.paper["source"]
    if evidence.setting.scale == "paper":
        return (
            f"The paper's values are those stated in the text of arXiv:{source['arxiv']} ({source['backbone']}, "
            f"{source['data']})."
        )
    return (
        f"The paper's values (arXiv:{source['arxiv']}) are of {source['backbone']} on the {source['data']}; ours are "
        f"of {evidence.setting.backbone} on {evidence.setting.data}. The two are not comparable, and nothing here "
        "is a reproduction of the paper's numbers."
    )


def parity_notes(evidence: Evidence) -> list[str]:
    """Deployed parameters of each method against LoRA's (else the first comparable method's); none without a run."""
    from hiplora.methods import method_class

    sizes: dict[str, tuple[str, set[int], set[int]]] = {}
    for key in evidence.experiment.keys("single", "method"):
        records = [slot.record for slot in evidence.select("single", method=key) if slot.record]
        told = [record["training"] for record in records if "deployed_parameters" in record.get("training", {})]
        if told:
            deployed, trained = ({run[f"{kind}_parameters"] for run in told} for kind in ("deployed", "trainable"))
            sizes[key] = records[0]["labels"]["method"], deployed, trained
    if not sizes:
        return []
    comparable = [key for key, (name, _, _) in sizes.items() if not method_class(name).parity_exception]
    reference = "lora" if "lora" in sizes else next(iter([*comparable, *sizes]))
    count = max(sizes[reference][1])
    parts = [f"{evidence.experiment.label(reference)} {count:,}"]
    for key, (name, deployed, trained) in sizes.items():
        if key == reference:
            continue
        reason = method_class(name).parity_exception
        shares = [size / count for size in (min(deployed), max(deployed))]
        words = f"{evidence.experiment.label(key)} × {_range(shares, '.3f')}"
        if reason:
            words += f" (exception: {reason}; {_range(trained, ',')} trained, {_range(deployed, ',')} deployed)"
        elif any(abs(share - 1) > PARITY for share in shares):
            words += f" (outside {PARITY:.0%})"
        parts.append(words)
    return [f"Deployed parameters, to be equal within {PARITY:.0%}: {'; '.join(parts)}."]


def _range(values: Collection[float], form: str) -> str:
    """Smallest and largest, or the one that all are."""
    ends = dict.fromkeys(format(value, form) for value in (min(values), max(values)))
    return " to ".join(ends)


def mark_note(unit: str) -> str:
    """How to read the counts in parentheses."""
    return (
        f"In parentheses: how many {unit} stand behind a value; (2/3) says that one of three is still missing, – that "
        "all are. A blank is not defined."
    )
