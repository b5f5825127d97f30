"""Role to name, for each key map and family: data. Sources: the libraries' own files, named beside each table.

A pair is a convolution and its batch norm; braces are filled in by ``sources.places``, ``{at}`` and ``{next}`` by where
a step stands within its block.
"""

from __future__ import annotations

from edgecnn.models.key_maps.sources import LayerNames

# TensorFlow models, research/slim/nets/mobilenet; batch norm folded.
SLIM_V2: LayerNames = {
    "conv.1": "Conv2d_0_0",
    "conv.2": "Conv2d_{flat}_1",
    "expand": "expanded_conv_{flat}.expand",
    "depthwise": "expanded_conv_{flat}.depthwise",
    "project": "expanded_conv_{flat}.project",
    "classifier": "top.Conv2d_1x1_output",
}

# --- keras.applications ---

KERAS_V1: LayerNames = {  # mobilenet.py
    "conv": ("conv1", "conv1_bn"),
    "depthwise": ("conv_dw_{flat}", "conv_dw_{flat}_bn"),
    "pointwise": ("conv_pw_{flat}", "conv_pw_{flat}_bn"),
    "classifier": "conv_preds",
}
KERAS_V2: LayerNames = {  # mobilenet_v2.py
    "conv.1": ("Conv1", "bn_Conv1"),
    "conv.2": ("Conv_1", "Conv_1_bn"),
    "expand": ("block_{before}_expand", "block_{before}_expand_BN"),
    "depthwise": ("block_{before}_depthwise", "block_{before}_depthwise_BN"),
    "project": ("block_{before}_project", "block_{before}_project_BN"),
    "first.depthwise": ("expanded_conv_depthwise", "expanded_conv_depthwise_BN"),
    "first.project": ("expanded_conv_project", "expanded_conv_project_BN"),
    "classifier": "predictions",
}
KERAS_V3: LayerNames = {  # mobilenet_v3.py; its first block has no number
    "conv.1": ("conv", "conv_bn"),
    "conv.2": ("conv_1", "conv_1_bn"),
    "expand": ("expanded_conv_{before}_expand", "expanded_conv_{before}_expand_bn"),
    "depthwise": ("expanded_conv_{before}_depthwise", "expanded_conv_{before}_depthwise_bn"),
    "squeeze.reduce": "expanded_conv_{before}_squeeze_excite_conv",
    "squeeze.expand": "expanded_conv_{before}_squeeze_excite_conv_1",
    "project": ("expanded_conv_{before}_project", "expanded_conv_{before}_project_bn"),
    "first.depthwise": ("expanded_conv_depthwise", "expanded_conv_depthwise_bn"),
    "first.squeeze.reduce": "expanded_conv_squeeze_excite_conv",
    "first.squeeze.expand": "expanded_conv_squeeze_excite_conv_1",
    "first.project": ("expanded_conv_project", "expanded_conv_project_bn"),
    "hidden.0": "conv_2",
    "classifier": "logits",
}
KERAS_RESNET: LayerNames = {  # resnet.py
    "conv": ("conv1_conv", "conv1_bn"),
    "shortcut": ("conv{group}_block{number}_0_conv", "conv{group}_block{number}_0_bn"),
    **{
        f"branch.{k}": (f"conv{{group}}_block{{number}}_{k + 1}_conv", f"conv{{group}}_block{{number}}_{k + 1}_bn")
        for k in range(3)
    },
    "classifier": "predictions",
}
KERAS_VGG: LayerNames = {  # vgg16.py, vgg19.py
    "conv": "block{pooled}_conv{since}", "hidden.0": "fc1", "hidden.1": "fc2", "classifier": "predictions",
}  # fmt: skip
KERAS_EFFICIENTNET: LayerNames = {  # efficientnet.py
    "conv.1": ("stem_conv", "stem_bn"),
    "conv.2": ("top_conv", "top_bn"),
    "expand": ("block{layer}{letter}_expand_conv", "block{layer}{letter}_expand_bn"),
    "depthwise": ("block{layer}{letter}_dwconv", "block{layer}{letter}_bn"),
    "squeeze.reduce": "block{layer}{letter}_se_reduce",
    "squeeze.expand": "block{layer}{letter}_se_expand",
    "project": ("block{layer}{letter}_project_conv", "block{layer}{letter}_project_bn"),
    "classifier": "predictions",
}

# --- torchvision.models ---

TORCH_ALEXNET: LayerNames = {  # alexnet.py
    "conv": "features.{slot}", "hidden.0": "classifier.1", "hidden.1": "classifier.4", "classifier": "classifier.6",
}  # fmt: skip
TORCH_VGG: LayerNames = {  # vgg.py
    "conv": ("features.{slot}", "features.{after}"),
    "hidden.0": "classifier.0", "hidden.1": "classifier.3", "classifier": "classifier.6",
}  # fmt: skip
TORCH_GOOGLENET: LayerNames = {  # googlenet.py
    "conv": ("conv{nth}.conv", "conv{nth}.bn"),
    **{
        role: (f"inception{{inception}}.{branch}.conv", f"inception{{inception}}.{branch}.bn")
        for role, branch in (
            ("one", "branch1"), ("three.0", "branch2.0"), ("three.1", "branch2.1"), ("five.0", "branch3.0"),
            ("five.1", "branch3.1"), ("pool.1", "branch4.1"),
        )
    },
    "classifier": "fc",
}  # fmt: skip
_RESNET: LayerNames = {
    "conv": ("conv1", "bn1"),
    "shortcut": ("layer{layer}.{block}.downsample.0", "layer{layer}.{block}.downsample.1"),
    **{
        f"branch.{k}": (f"layer{{layer}}.{{block}}.conv{k + 1}", f"layer{{layer}}.{{block}}.bn{k + 1}")
        for k in range(3)
    },
}
TORCH_RESNET: LayerNames = {**_RESNET, "classifier": "fc"}  # resnet.py
TORCH_CIFAR: LayerNames = {**_RESNET, "classifier": "linear"}  # akamaster/pytorch_resnet_cifar10, resnet.py
TORCH_V2: LayerNames = {  # mobilenetv2.py
    "conv": ("features.{flat}.0", "features.{flat}.1"),
    "expand": ("features.{flat}.conv.{at}.0", "features.{flat}.conv.{at}.1"),
    "depthwise": ("features.{flat}.conv.{at}.0", "features.{flat}.conv.{at}.1"),
    "project": ("features.{flat}.conv.{at}", "features.{flat}.conv.{next}"),
    "classifier": "classifier.1",
}


def _blocks(block: str) -> LayerNames:
    return {
        **dict.fromkeys(("expand", "depthwise", "project"), (f"{block}.{{at}}.0", f"{block}.{{at}}.1")),
        "squeeze.reduce": f"{block}.{{at}}.fc1",
        "squeeze.expand": f"{block}.{{at}}.fc2",
    }


TORCH_V3: LayerNames = {  # mobilenetv3.py
    "conv": ("features.{flat}.0", "features.{flat}.1"),
    **_blocks("features.{flat}.block"),
    "hidden.0": "classifier.0",
    "classifier": "classifier.3",
}
TORCH_EFFICIENTNET: LayerNames = {  # efficientnet.py
    "conv.1": ("features.0.0", "features.0.1"),
    "conv.2": ("features.{group}.0", "features.{group}.1"),
    **_blocks("features.{layer}.{block}.block"),
    "classifier": "classifier.1",
}

# --- timm.models: efficientnet.py, mobilenetv3.py ---

_TIMM: LayerNames = {
    "conv.1": ("conv_stem", "bn1"),
    "expand": ("blocks.{stage}.{block}.conv_pw", "blocks.{stage}.{block}.bn1"),
    "depthwise": ("blocks.{stage}.{block}.conv_dw", "blocks.{stage}.{block}.bn2"),
    "squeeze.reduce": "blocks.{stage}.{block}.se.conv_reduce",
    "squeeze.expand": "blocks.{stage}.{block}.se.conv_expand",
    "project": ("blocks.{stage}.{block}.conv_pwl", "blocks.{stage}.{block}.bn3"),
    "first.depthwise": ("blocks.{stage}.{block}.conv_dw", "blocks.{stage}.{block}.bn1"),
    "first.project": ("blocks.{stage}.{block}.conv_pw", "blocks.{stage}.{block}.bn2"),
    "classifier": "classifier",
}
TIMM_EFFICIENTNET: LayerNames = {**_TIMM, "conv.2": ("conv_head", "bn2")}
TIMM_V3: LayerNames = {**_TIMM, "conv.2": ("blocks.{layer}.0.conv", "blocks.{layer}.0.bn1"), "hidden.0": "conv_head"}

# --- efficientnet_pytorch: model.py ---

LUKEMELAS: LayerNames = {
    "conv.1": ("_conv_stem", "_bn0"),
    "conv.2": ("_conv_head", "_bn1"),
    "expand": ("_blocks.{before}._expand_conv", "_blocks.{before}._bn0"),
    "depthwise": ("_blocks.{before}._depthwise_conv", "_blocks.{before}._bn1"),
    "squeeze.reduce": "_blocks.{before}._se_reduce",
    "squeeze.expand": "_blocks.{before}._se_expand",
    "project": ("_blocks.{before}._project_conv", "_blocks.{before}._bn2"),
    "classifier": "_fc",
}
