"""The results of bench.gpu as tables in Markdown, for docs/figures.md."""

from collections.abc import Iterator
from typing import Any

Row = tuple[str, str, str]


def table(results: dict[str, Any]) -> str:
    """A sentence on the machine, a row for each figure, and the parts that failed."""
    parts = results["parts"]
    machine = _last(parts, "gpu_machine")
    rate = f", {machine['bf16_tflops']:,.0f} TFLOP/s in bf16" if "bf16_tflops" in machine else ""
    first = f"{machine.get('card', 'unknown card')}{rate}, torch {machine.get('torch', 'unknown')}"
    lines = [
        f"{first}, {results.get('seconds', 0):.0f} s in all.",
        "",
        "| what | figure | compared with |",
        "|---|---|---|",
    ]
    lines += [f"| {what} | {figure} | {other} |" for what, figure, other in _rows(parts)]
    failed = [f"- `{name}`: {_short(part['error'])}" for name, part in parts.items() if "error" in part]
    return "\n".join(lines + (["", "Not done, or not whole:", "", *failed] if failed else []))


def _rows(parts: dict[str, Any]) -> Iterator[Row]:
    for line in _lines(parts, "encode_text")[-1:]:
        p = line["precision"]
        share, usual = line["share_of_product_rate"][p], line["usual_words_per_second"]
        figure = f"{line['words_per_second'][p]:,.0f} a second in {p}, {share:.1%} of the product rate"
        yield "words, from list to committed cache", figure, f"{line['ratio']:,.1f}x open_clip's loop, {usual:,.0f}"
        yield "the text encoder alone", f"{line['encoder_alone']:,.0f} words a second", f"busy {line['busy']:.0%} above"
    for line in _lines(parts, "encode_images")[-1:]:
        share, usual = line["share_of_product_rate"], line["usual_pictures_per_second"]
        figure = f"{line['pictures_per_second']:,.0f} a second in {line['precision']}, {share:.1%} of the product rate"
        yield (
            "photographs, from files to committed bank",
            figure,
            f"{line['ratio']:,.1f}x open_clip's loop, {usual:,.0f}",
        )
        yield "the image encoder alone", f"{line['encoder_alone']:,.0f} a second", f"busy {line['busy']:.0%} above"
    for depth, line in {line["depth"]: line for line in _lines(parts, "pretrain_step")}.items():
        for execution in ("eager", "graphs", "compiled"):
            if execution in line:
                used = line.get(f"utilisation_{execution}")
                figure = f"{line[execution]:,.0f} words a second" + (
                    f", {used:.0%} of the product rate" if used else ""
                )
                ratio = f"{line[execution] / line['released']:.1f}x the released step, {line['released']:,.0f}"
                yield f"training step, depth {depth}, {execution}", figure, ratio
    for line in _lines(parts, "stream_step")[-1:]:
        figure = f"{line['streamed_words_per_second']:,.0f} words a second, waiting {line['streamed_waiting']:.1%}"
        yield "training from streamed memories", figure, f"resident: {line['resident_words_per_second']:,.0f}"
        yield "the reader alone", f"{line['reader_alone_memories_per_second']:,.0f} memories a second", ""
    for line in _lines(parts, "finetune_step"):
        what = f"fine-tuning, batch {line['batch']}, {line['encoder']}{', frozen' if line['frozen'] else ''}"
        used = f", {line['utilisation']:.0%} of the product rate" if "utilisation" in line else ""
        yield what, f"{line['crops_per_second']:,.0f} crops a second{used}", f"waiting {line['waiting']:.1%}"
    tests = [line["outcome"] for line in _lines(parts, "gpu_tests") if "outcome" in line]
    if tests:
        yield "tests that need a GPU", f"{tests.count('passed')} of {len(tests)} passed", ""


def _lines(parts: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return list(parts.get(name, {}).get("lines", []))


def _last(parts: dict[str, Any], name: str) -> dict[str, Any]:
    return dict((_lines(parts, name) or [{}])[-1])


def _short(error: str) -> str:
    return error.strip().splitlines()[-1][:200] if error.strip() else "no reason given"
