"""Makes one ONNX graph of the parts that are traced: a Loop stands for "until all rows have ended".

torch's older exporter traces a part in a third of a second. The newer one takes 14 to 19 seconds for the smallest
recogniser, half of them to export the program and half to rewrite it.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.decoders import StepDecoder
from models.recogniser import Recogniser
from train.export.onnx.forms import OPSET, short_forms
from train.export.onnx.parts import End, Start, Step, Whole

OUTPUTS = ("ids", "probabilities")
Axes = Mapping[int, str]  # dimensions that are not constant, with their names
BATCH: Axes = {0: "B"}


def reader(recogniser: Recogniser) -> Any:
    """The onnx.ModelProto that reads pictures (B, 3, H, W) uint8: ids and probabilities, (B, max_length + 1) each."""
    from onnx import helper

    pictures = torch.zeros(2, 3, *recogniser.config.vision.image_size, dtype=torch.uint8)
    with torch.no_grad(), short_forms():
        if isinstance(recogniser.decoder, StepDecoder):
            graph = _loop(recogniser, recogniser.decoder, pictures)
        else:
            graph = _traced(Whole(recogniser), {"pictures": (pictures, BATCH)}, OUTPUTS)
    _add_weights(graph, Whole(recogniser).state_dict())  # under the names that all parts give them
    _name_outputs(graph, recogniser.config.decoder.max_length + 1)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def _loop(recogniser: Recogniser, decoder: StepDecoder, pictures: Tensor) -> Any:
    """The three parts of a step-by-step reader, with a Loop around the step."""
    from onnx import TensorProto, helper

    pasts = [f"{one}_{n}" for n in range(len(decoder.layers)) for one in ("keys", "values")]
    memories = [f"memory_{one}" for one in pasts]
    growing: Axes = {0: "B", 2: "past"}
    first = Start(recogniser, decoder)
    ids, shares, empty, *looked_at = first(pictures)
    start = _traced(first, {"pictures": (pictures, BATCH)}, ["begin_ids", "begin_shares", "nothing", *memories])
    state: dict[str, tuple[Tensor, Axes]] = {"ids": (ids, {0: "B", 1: "read"}), "shares": (shares, {0: "B", 1: "past"})}
    state |= {name: (empty, growing) for name in pasts}
    memory = {name: (one, BATCH) for name, one in zip(memories, looked_at, strict=True)}
    inputs = {"number": (torch.tensor(0), {}), **state, **memory}
    after = [f"{name}_after" for name in state]
    body = _traced(Step(recogniser, decoder), inputs, ["going", *after], "step/", set(memories))
    last = Step(recogniser, decoder)(*(value for value, _ in inputs.values()))[1:]
    ended = {f"after/{name}": (one, axes) for (name, (_, axes)), one in zip(state.items(), last, strict=True)}
    end = _traced(End(recogniser, decoder), {**ended, **memory}, OUTPUTS, "end/", {*memories, *ended, *OUTPUTS})
    going_on = helper.make_tensor_value_info("step/before", TensorProto.BOOL, [])
    kept = [one for one in body.input if one.name not in memories]
    del body.input[:]
    body.input.extend([kept[0], going_on, *kept[1:]])
    constants = [
        helper.make_tensor("steps", TensorProto.INT64, [], [decoder.config.max_length + 1]),
        helper.make_tensor("true", TensorProto.BOOL, [], [True]),
    ]
    begin = ["steps", "true", "begin_ids", "begin_shares", *["nothing"] * len(pasts)]
    loop = helper.make_node("Loop", begin, list(ended), name="read", body=body)
    nodes = [*start.node, loop, *end.node]
    return helper.make_graph(nodes, "reader", start.input, end.output, constants)


def _traced(
    part: nn.Module,
    inputs: Mapping[str, tuple[Tensor, Axes]],
    outputs: Sequence[str],
    prefix: str = "",
    shared: set[str] = frozenset(),  # type: ignore[assignment]
) -> Any:
    """A part as an onnx.GraphProto without weights: each input is an example and its dimensions that vary.

    All names begin with the prefix, but those of weights and `shared` ones, which the graph has from outside.
    """
    import onnx

    file, examples = io.BytesIO(), tuple(example for example, _ in inputs.values())
    names = {"input_names": list(inputs), "output_names": list(outputs)}
    axes = {name: dict(varying) for name, (_, varying) in inputs.items() if varying}
    plain: dict[str, Any] = {"export_params": False, "do_constant_folding": False, "opset_version": OPSET}
    torch.onnx.export(part.eval(), examples, file, dynamo=False, dynamic_axes=axes, **names, **plain)
    graph = onnx.load_from_string(file.getvalue()).graph
    weights = set(part.state_dict())
    kept = [one for one in graph.input if one.name not in weights]
    del graph.input[:], graph.value_info[:]
    graph.input.extend(kept)
    _rename(graph, prefix, weights | shared | {""})
    return graph


def _rename(graph: Any, prefix: str, kept: set[str]) -> None:
    """Give every name in a graph the prefix, but those to be kept; forget where nodes were made."""
    for value in (*graph.input, *graph.output):
        value.name = value.name if value.name in kept else prefix + value.name
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param and axis.dim_param != "B":
                axis.Clear()  # it grows
    for value in graph.output:  # of which torch recorded the sizes of the examples
        value.type.tensor_type.ClearField("shape")
    for node in graph.node:
        node.doc_string, node.name = "", prefix + node.name
        for names in (node.input, node.output):
            names[:] = [name if name in kept else prefix + name for name in names]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, prefix, kept)


def _add_weights(graph: Any, weights: Mapping[str, Tensor]) -> None:
    """Add the weights that nodes take, transposed where nodes took them transposed; those nodes go."""
    from onnx import numpy_helper

    taken: dict[str, Tensor] = {}

    def settle(graph: Any) -> None:
        turned, rest = {}, []
        for node in graph.node:
            if node.output[0] in weights:
                continue  # where two weights are equal, torch takes one for both
            if node.op_type == "Transpose" and node.input[0] in weights:
                name = f"{node.input[0]}.transposed"
                taken[name] = weights[node.input[0]].permute(*node.attribute[0].ints)
                turned[node.output[0]] = name
                continue
            node.input[:] = [turned.get(name, name) for name in node.input]
            taken.update({name: weights[name] for name in node.input if name in weights})
            rest.append(node)
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    settle(attribute.g)
        del graph.node[:]
        graph.node.extend(rest)

    settle(graph)
    graph.initializer.extend(numpy_helper.from_array(one.contiguous().numpy(), name) for name, one in taken.items())


def _name_outputs(graph: Any, positions: int) -> None:
    """Both outputs are (B, positions)."""
    for value in graph.output:
        shape = value.type.tensor_type.shape
        del shape.dim[:]
        shape.dim.add().dim_param = "B"
        shape.dim.add().dim_value = positions
