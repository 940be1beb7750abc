"""The table of names: where each network's function is, and what its images are like."""

import dataclasses
from dataclasses import dataclass

from imgclf.errors import UserError, unknown
from imgclf.preprocess import IMAGENET, PLAIN, Preprocess


@dataclass(frozen=True)
class Entry:
    """A line of the table."""

    family: str
    """The module of this folder with a function `(num_classes, **options)` of the entry's name."""
    preprocess: Preprocess
    """What images go through for the weights that are published under this name."""
    minimum_size: int
    """The least height and width, in px, of the images it takes."""


def _rows(family: str, minimum_size: int, preprocess: Preprocess, names: str) -> dict[str, Entry]:
    return {name: Entry(family, preprocess, minimum_size) for name in names.split()}


def _as(preprocess: Preprocess, **changes: object) -> Preprocess:
    return dataclasses.replace(preprocess, **changes)  # type: ignore[arg-type]


_CIFAR = _as(IMAGENET, size=32, crop=1.0)
_HALF = (0.5, 0.5, 0.5)
_BILINEAR = _as(IMAGENET, interpolation="bilinear")
INCEPTION = _as(IMAGENET, mean=_HALF, std=_HALF)
"""The same, scaled to -1 to 1."""


def _efficient(
    family: str, size: int, names: str, crop: float = 0.875, base: Preprocess = IMAGENET
) -> dict[str, Entry]:
    return _rows(family, 32, _as(base, size=size, crop=crop), names)


_INCEPTION_BILINEAR = _as(INCEPTION, interpolation="bilinear")
_EFFICIENTNETS = {
    **_efficient("efficientnet", 224, "efficientnet_b0 efficientnet_lite0 efficientnet_es"),
    **_efficient("efficientnet", 240, "efficientnet_b1", 0.9, INCEPTION),
    **_efficient("efficientnet", 256, "efficientnet_b2"),
    **_efficient("efficientnet", 288, "efficientnet_b3"),
    **_efficient("efficientnet", 320, "efficientnet_b4"),
    **_efficient("efficientnet", 448, "efficientnet_b5", 1.0),
    **_efficient("efficientnet", 528, "efficientnet_b6 tf_efficientnet_b6", 0.942),
    **_efficient("efficientnet", 600, "efficientnet_b7 tf_efficientnet_b7", 0.949),
    **_efficient("efficientnet", 672, "efficientnet_b8", 0.954),
    **_efficient("efficientnet", 240, "efficientnet_lite1 efficientnet_em", 0.882),
    **_efficient("efficientnet", 260, "efficientnet_lite2", 0.89),
    **_efficient("efficientnet", 300, "efficientnet_lite3 efficientnet_el", 0.904),
    **_efficient("efficientnet", 380, "efficientnet_lite4", 0.922),
    **_efficient("efficientnet", 224, "efficientnetv2_rw_t", 1.0),
    **_efficient("efficientnet", 288, "efficientnetv2_rw_s efficientnetv2_s", 1.0),
    **_efficient("efficientnet", 320, "efficientnetv2_rw_m efficientnetv2_m", 1.0),
    **_efficient("efficientnet", 384, "efficientnetv2_l efficientnetv2_xl", 1.0),
    **_efficient("efficientnet", 224, "tf_efficientnet_b0"),
    **_efficient("efficientnet", 240, "tf_efficientnet_b1", 0.882),
    **_efficient("efficientnet", 260, "tf_efficientnet_b2", 0.89),
    **_efficient("efficientnet", 300, "tf_efficientnet_b3", 0.904),
    **_efficient("efficientnet", 380, "tf_efficientnet_b4", 0.922),
    **_efficient("efficientnet", 456, "tf_efficientnet_b5", 0.934),
    **_efficient("efficientnet", 672, "tf_efficientnet_b8", 0.954, INCEPTION),
    **_efficient("efficientnet", 224, "tf_efficientnet_lite0 tf_efficientnet_es", 0.875, INCEPTION),
    **_efficient("efficientnet", 240, "tf_efficientnet_lite1 tf_efficientnet_em", 0.882, INCEPTION),
    **_efficient("efficientnet", 260, "tf_efficientnet_lite2", 0.89, INCEPTION),
    **_efficient("efficientnet", 300, "tf_efficientnet_el", 0.904, INCEPTION),
    **_efficient("efficientnet", 300, "tf_efficientnet_lite3", 0.904, _INCEPTION_BILINEAR),
    **_efficient("efficientnet", 380, "tf_efficientnet_lite4", 0.92, _INCEPTION_BILINEAR),
    **_efficient("efficientnet", 300, "tf_efficientnetv2_s", 1.0, INCEPTION),
    **_efficient(
        "efficientnet",
        384,
        "tf_efficientnetv2_m tf_efficientnetv2_l tf_efficientnetv2_xl",
        1.0,
        INCEPTION,
    ),
    **_efficient("efficientnet", 192, "tf_efficientnetv2_b0"),
    **_efficient("efficientnet", 192, "tf_efficientnetv2_b1", 0.882),
    **_efficient("efficientnet", 208, "tf_efficientnetv2_b2", 0.89),
    **_efficient("efficientnet", 240, "tf_efficientnetv2_b3", 0.9, INCEPTION),
}
_MOBILENETS = {
    **_efficient("mobilenet", 224, "mobilenetv1_100 mobilenetv1_100h", 0.875, INCEPTION),
    **_efficient("mobilenet", 224, "mobilenetv1_125", 0.9, INCEPTION),
    **_efficient(
        "mobilenet",
        224,
        "mobilenetv2_035 mobilenetv2_050 mobilenetv2_075 mobilenetv2_100 mobilenetv2_140 "
        "mobilenetv2_110d mobilenetv2_120d mobilenetv3_large_100 mobilenetv3_rw "
        "mobilenetv3_small_050 mobilenetv3_small_075 mobilenetv3_small_100 mobilenetv4_conv_small",
    ),
    **_efficient(
        "mobilenet",
        224,
        "mobilenetv3_large_075",
        base=_as(IMAGENET, interpolation="bilinear"),
    ),
    **_efficient("mobilenet", 256, "mobilenetv3_large_150d", 0.95, _INCEPTION_BILINEAR),
    **_efficient(
        "mobilenet",
        224,
        "tf_mobilenetv3_large_075 tf_mobilenetv3_large_100 tf_mobilenetv3_large_minimal_100 "
        "tf_mobilenetv3_small_075 tf_mobilenetv3_small_100 tf_mobilenetv3_small_minimal_100",
        base=_INCEPTION_BILINEAR,
    ),
    **_efficient(
        "mobilenet", 224, "mobilenetv4_conv_small_035 mobilenetv4_conv_small_050", 0.875, INCEPTION
    ),
    **_efficient("mobilenet", 256, "mobilenetv4_conv_medium mobilenetv4_conv_aa_medium", 0.95),
    **_efficient("mobilenet", 224, "mobilenetv4_conv_blur_medium", 0.95),
    **_efficient("mobilenet", 384, "mobilenetv4_conv_large", 0.95),
    **_efficient("mobilenet", 448, "mobilenetv4_conv_aa_large", 0.95),
}

TABLE: dict[str, Entry] = {
    **_rows(
        "cifar_resnet",
        8,
        _CIFAR,
        "cifar_resnet20 cifar_resnet32 cifar_resnet44 cifar_resnet56 cifar_resnet110",
    ),
    **_rows("cnn", 8, PLAIN, "cnn"),
    **_rows("alexnet", 64, _BILINEAR, "alexnet"),
    **_rows("vgg", 32, _BILINEAR, "vgg11 vgg13 vgg16 vgg19 vgg11_bn vgg13_bn vgg16_bn vgg19_bn"),
    # torchvision's scales ImageNet's normalisation to this one inside the network.
    **_rows("googlenet", 32, _INCEPTION_BILINEAR, "googlenet"),
    **_rows("inception_v3", 75, _as(INCEPTION, size=299), "inception_v3"),
    **_rows("squeezenet", 32, _BILINEAR, "squeezenet1_0 squeezenet1_1"),
    **_rows("densenet", 32, IMAGENET, "densenet121 densenet161 densenet169 densenet201"),
    **_rows(
        "shufflenet_v2",
        32,
        _BILINEAR,
        "shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0",
    ),
    **_rows("genet", 32, _as(IMAGENET, interpolation="bilinear"), "gernet_s gernet_m"),
    **_rows("genet", 32, _as(IMAGENET, interpolation="bilinear", size=256), "gernet_l"),
    **_rows(
        "nfnet",
        32,
        _as(IMAGENET, crop=0.9),
        "nf_resnet26 nf_resnet101 nfnet_f1 "
        "nf_seresnet26 nf_seresnet50 nf_seresnet101 nf_ecaresnet26 nf_ecaresnet50 nf_ecaresnet101",
    ),
    **_rows("nfnet", 32, _as(IMAGENET, size=256, crop=0.94), "nf_resnet50"),
    **_rows("nfnet", 32, _as(IMAGENET, size=192, crop=0.9), "nf_regnet_b0 dm_nfnet_f0 nfnet_f0"),
    **_rows("nfnet", 32, _as(IMAGENET, size=256, crop=0.9), "nf_regnet_b1 eca_nfnet_l1 nfnet_f2"),
    **_rows("nfnet", 32, _as(IMAGENET, size=240, crop=0.9), "nf_regnet_b2"),
    **_rows("nfnet", 32, _as(IMAGENET, size=288, crop=0.9), "nf_regnet_b3"),
    **_rows("nfnet", 32, _as(IMAGENET, size=320, crop=0.9), "nf_regnet_b4 eca_nfnet_l2 nfnet_f3"),
    **_rows("nfnet", 32, _as(IMAGENET, size=384, crop=0.9), "nf_regnet_b5 nfnet_f4"),
    **_rows("nfnet", 32, _as(IMAGENET, size=352, crop=0.9), "eca_nfnet_l3"),
    **_rows("nfnet", 32, _as(IMAGENET, size=416, crop=0.9), "nfnet_f5"),
    **_rows("nfnet", 32, _as(IMAGENET, size=448, crop=0.9), "nfnet_f6"),
    **_rows("nfnet", 32, _as(IMAGENET, size=480, crop=0.9), "nfnet_f7"),
    **_rows("nfnet", 32, _as(IMAGENET, crop=0.91), "dm_nfnet_f1"),
    **_rows("nfnet", 32, _as(IMAGENET, size=256, crop=0.92), "dm_nfnet_f2"),
    **_rows("nfnet", 32, _as(IMAGENET, size=320, crop=0.94), "dm_nfnet_f3"),
    **_rows("nfnet", 32, _as(IMAGENET, size=384, crop=0.951), "dm_nfnet_f4"),
    **_rows("nfnet", 32, _as(IMAGENET, size=416, crop=0.954), "dm_nfnet_f5"),
    **_rows("nfnet", 32, _as(IMAGENET, size=448, crop=0.956), "dm_nfnet_f6"),
    **_rows("nfnet", 32, _as(IMAGENET, crop=0.9), "nfnet_l0 eca_nfnet_l0"),
    **_rows(
        "regnet",
        32,
        IMAGENET,
        "regnetx_002 regnetx_004 regnetx_006 regnetx_040 regnetx_064 regnetx_120 "
        "regnety_002 regnety_006 regnety_008",
    ),
    **_rows(
        "regnet",
        32,
        _as(IMAGENET, crop=0.965),
        "regnetx_008 regnetx_016 regnetx_032 regnetx_080 regnetx_160 regnetx_320 "
        "regnety_004 regnety_016 regnety_320 regnetx_004_tv regnety_008_tv regnety_080_tv",
    ),
    **_rows("regnet", 32, _as(IMAGENET, size=384, crop=1.0), "regnety_640 regnety_1280"),
    **_rows(
        "regnet",
        32,
        _as(IMAGENET, crop=0.95),
        "regnety_032 regnety_040 regnety_064 regnety_080 regnety_120 regnety_160",
    ),
    **_rows(
        "repvgg",
        32,
        _as(IMAGENET, interpolation="bilinear"),
        "repvgg_a0 repvgg_a1 repvgg_a2 repvgg_b0 repvgg_b1 repvgg_b1g4 repvgg_b2 repvgg_b2g4 "
        "repvgg_b3 repvgg_b3g4",
    ),
    **_EFFICIENTNETS,
    **_MOBILENETS,
    **_rows(
        "mnasnet",
        32,
        IMAGENET,
        "mnasnet_050 mnasnet_075 mnasnet_100 mnasnet_140 "
        "semnasnet_050 semnasnet_075 semnasnet_100 semnasnet_140 mnasnet_small",
    ),
    **_rows(
        "metaformer", 32, _as(IMAGENET, crop=0.9), "poolformer_s12 poolformer_s24 poolformer_s36"
    ),
    **_rows("metaformer", 32, _as(IMAGENET, crop=0.95), "poolformer_m36 poolformer_m48"),
    **_rows(
        "metaformer",
        32,
        _as(IMAGENET, crop=1.0),
        "poolformerv2_s12 poolformerv2_s24 poolformerv2_s36 poolformerv2_m36 poolformerv2_m48 "
        "caformer_s18 caformer_s36 caformer_m36 caformer_b36 "
        "convformer_s18 convformer_s36 convformer_m36 convformer_b36",
    ),
    **_rows(
        "mlp_mixer",
        32,
        INCEPTION,
        "mixer_s32_224 mixer_s16_224 mixer_b32_224 mixer_b16_224 mixer_l32_224 mixer_l16_224 "
        "gmlp_ti16_224 gmlp_s16_224 gmlp_b16_224",
    ),
    **_rows(
        "mlp_mixer",
        16,
        IMAGENET,
        "resmlp_12_224 resmlp_24_224 resmlp_36_224 resmlp_big_24_224 gmixer_12_224 gmixer_24_224",
    ),
    **_rows("sequence", 8, PLAIN, "lstm gru cnn_lstm"),
    # Figures of the recipes, and of most publications, are those of this crop.
    **_rows("resnet", 32, IMAGENET, "resnet18 resnet34 resnet50 resnet101 resnet152"),
    **_rows("resnet", 32, _as(IMAGENET, size=176), "resnet10t resnet14t"),
    **_rows(
        "resnet",
        32,
        _as(IMAGENET, crop=0.95),
        "resnext50_32x4d resnext101_64x4d seresnet50 seresnext101_32x8d seresnext101d_32x8d "
        "resnetaa50 resnetaa50d resnetaa101d",
    ),
    **_rows(
        "resnet",
        32,
        IMAGENET,
        "resnet18d resnet26 resnet26d resnet34d resnet50c resnet50d resnet50s resnet50t "
        "resnet101c resnet101s resnet152c resnet152s resnet200 resnext50d_32x4d "
        "wide_resnet50_2 seresnet18 seresnet34 seresnet50t seresnet101 seresnet152 "
        "seresnext26d_32x4d seresnext26t_32x4d seresnext50_32x4d seresnext101_32x4d "
        "ecaresnet50d ecaresnet101d ecaresnetlight resnetblur18 resnetblur50 "
        "resnetblur50d resnetblur101d resnetaa34d ecaresnext26t_32x4d ecaresnext50t_32x4d "
        "seresnetaa50d seresnext101_64x4d",
    ),
    **_rows("resnet", 32, _as(IMAGENET, size=256, crop=0.94), "resnet26t"),
    **_rows(
        "resnet",
        32,
        _as(IMAGENET, size=256, crop=0.95),
        "resnet101d resnet152d resnet200d seresnet152d ecaresnet200d",
    ),
    **_rows(
        "resnet",
        32,
        _as(IMAGENET, interpolation="bilinear"),
        "resnext101_32x4d resnext101_32x8d resnext101_32x16d resnext101_32x32d wide_resnet101_2",
    ),
    **_rows("resnet", 32, _as(IMAGENET, size=288, crop=0.95), "seresnextaa101d_32x8d"),
    **_rows(
        "resnet", 32, _as(IMAGENET, size=256), "ecaresnet26t ecaresnet50t seresnet200d seresnet269d"
    ),
    **_rows("resnet", 32, _as(IMAGENET, size=160, crop=0.91), "resnetrs50"),
    **_rows("resnet", 32, _as(IMAGENET, size=192, crop=0.94), "resnetrs101"),
    **_rows("resnet", 32, _as(IMAGENET, size=256, crop=1.0), "resnetrs152 resnetrs200 resnetrs270"),
    **_rows("resnet", 32, _as(IMAGENET, size=288, crop=1.0), "resnetrs350"),
    **_rows("resnet", 32, _as(IMAGENET, size=320, crop=1.0), "resnetrs420"),
    **_rows("resnet", 32, _as(IMAGENET, size=320, crop=0.95), "ecaresnet269d"),
    **_rows("resnet", 32, _as(IMAGENET, size=384, crop=1.0), "seresnextaa201d_32x8d"),
    **_rows("resnetv2", 32, _as(INCEPTION, crop=0.95), "resnetv2_101 resnetv2_50"),
    **_rows(
        "resnetv2",
        32,
        INCEPTION,
        "resnetv2_101d resnetv2_152 resnetv2_152d resnetv2_152x2_bit resnetv2_50d "
        "resnetv2_50x1_bit",
    ),
    **_rows(
        "resnetv2",
        32,
        _as(INCEPTION, size=448, crop=1.0, interpolation="bilinear"),
        "resnetv2_101x1_bit resnetv2_101x3_bit resnetv2_50x3_bit",
    ),
    **_rows(
        "resnetv2",
        32,
        _as(INCEPTION, size=480, crop=1.0, interpolation="bilinear"),
        "resnetv2_152x4_bit",
    ),
    **_rows(
        "resnetv2",
        32,
        _as(INCEPTION, crop=0.9),
        "resnetv2_18 resnetv2_18d resnetv2_34 resnetv2_34d",
    ),
    **_rows("vit", 8, _as(IMAGENET, crop=0.9), "vit_small_patch8_224"),
    **_rows("vit", 14, _as(IMAGENET, crop=0.9), "vit_huge_patch14_gap_224 deit3_huge_patch14_224"),
    **_rows(
        "vit",
        14,
        _as(IMAGENET, size=518, crop=1.0),
        "vit_small_patch14_dinov2 vit_base_patch14_dinov2 vit_large_patch14_dinov2 "
        "vit_giant_patch14_dinov2 vit_small_patch14_reg4_dinov2 "
        "vit_base_patch14_reg4_dinov2 vit_large_patch14_reg4_dinov2 "
        "vit_giant_patch14_reg4_dinov2",
    ),
    **_rows(
        "vit",
        16,
        _as(IMAGENET, crop=0.9),
        "deit_tiny_patch16_224 deit_small_patch16_224 deit_base_patch16_224 "
        "deit_tiny_distilled_patch16_224 deit_small_distilled_patch16_224 "
        "deit_base_distilled_patch16_224 deit3_small_patch16_224 deit3_medium_patch16_224 "
        "deit3_base_patch16_224 deit3_large_patch16_224",
    ),
    **_rows(
        "vit",
        16,
        _as(IMAGENET, size=384, crop=1.0),
        "deit_base_patch16_384 deit_base_distilled_patch16_384 deit3_small_patch16_384 "
        "deit3_base_patch16_384 deit3_large_patch16_384",
    ),
    **_rows("vit", 8, _as(INCEPTION, crop=0.9), "vit_base_patch8_224"),
    **_rows(
        "vit",
        14,
        _as(INCEPTION, crop=0.9),
        "vit_large_patch14_224 vit_huge_patch14_224 vit_so400m_patch14_siglip_224",
    ),
    **_rows("vit", 14, _as(INCEPTION, size=378, crop=0.9), "vit_so400m_patch14_siglip_378"),
    **_rows("vit", 14, _as(INCEPTION, size=384, crop=0.9), "vit_so400m_patch14_siglip_384"),
    **_rows(
        "vit",
        16,
        _as(INCEPTION, crop=0.9),
        "vit_tiny_patch16_224 vit_small_patch16_224 vit_base_patch16_224 "
        "vit_large_patch16_224 vit_base_patch16_siglip_224 "
        "vit_base_patch16_siglip_gap_224 vit_base_patch16_gap_224",
    ),
    **_rows("vit", 16, _as(INCEPTION, size=240, crop=0.95), "vit_medium_patch16_gap_240"),
    **_rows(
        "vit",
        16,
        _as(INCEPTION, size=256, crop=0.9),
        "vit_base_patch16_siglip_256 vit_large_patch16_siglip_256 "
        "vit_so400m_patch16_siglip_256 vit_base_patch16_siglip_gap_256",
    ),
    **_rows("vit", 16, _as(INCEPTION, size=256, crop=0.95), "vit_medium_patch16_gap_256"),
    **_rows(
        "vit",
        16,
        _as(INCEPTION, size=384, crop=1.0),
        "vit_tiny_patch16_384 vit_small_patch16_384 vit_base_patch16_384 vit_large_patch16_384",
    ),
    **_rows(
        "vit",
        16,
        _as(INCEPTION, size=384, crop=0.9),
        "vit_base_patch16_siglip_384 vit_large_patch16_siglip_384 "
        "vit_so400m_patch16_siglip_384 vit_base_patch16_siglip_gap_384",
    ),
    **_rows("vit", 16, _as(INCEPTION, size=384, crop=0.95), "vit_medium_patch16_gap_384"),
    **_rows(
        "vit",
        16,
        _as(INCEPTION, size=512, crop=0.9),
        "vit_base_patch16_siglip_512 vit_large_patch16_siglip_512 "
        "vit_so400m_patch16_siglip_512 vit_base_patch16_siglip_gap_512",
    ),
    **_rows(
        "vit",
        32,
        _as(INCEPTION, crop=0.9),
        "vit_small_patch32_224 vit_base_patch32_224 vit_large_patch32_224",
    ),
    **_rows("vit", 32, _as(INCEPTION, size=256, crop=0.9), "vit_base_patch32_siglip_256"),
    **_rows(
        "vit",
        32,
        _as(INCEPTION, size=384, crop=1.0),
        "vit_small_patch32_384 vit_base_patch32_384 vit_large_patch32_384",
    ),
    **_rows(
        "vovnet",
        32,
        IMAGENET,
        "ese_vovnet19b_dw ese_vovnet19b_slim ese_vovnet19b_slim_dw ese_vovnet19b ese_vovnet39b "
        "ese_vovnet99b vovnet39a vovnet57a",
    ),
    **_rows("vovnet", 32, _as(INCEPTION, size=256, crop=0.95), "ese_vovnet57b"),
    **_rows(
        "convnext",
        32,
        IMAGENET,
        "convnext_atto convnext_atto_ols convnext_femto convnext_femto_ols convnext_pico "
        "convnext_base convnext_large convnext_xlarge convnextv2_atto convnextv2_femto "
        "convnextv2_pico convnextv2_nano convnextv2_tiny convnextv2_small convnextv2_base "
        "convnextv2_large",
    ),
    **_rows(
        "convnext",
        32,
        _as(IMAGENET, crop=0.95),
        "convnext_pico_ols convnext_nano convnext_nano_ols convnext_tiny convnext_small",
    ),
    **_rows("convnext", 32, _as(IMAGENET, size=384, crop=1.0), "convnextv2_huge"),
    **_rows(
        "swin",
        32,
        _as(IMAGENET, crop=0.9),
        "swin_tiny_patch4_window7_224 swin_small_patch4_window7_224 swin_base_patch4_window7_224 "
        "swin_large_patch4_window7_224 swin_s3_tiny_224 swin_s3_small_224 swin_s3_base_224",
    ),
    **_rows(
        "swin",
        32,
        _as(IMAGENET, size=384, crop=1.0),
        "swin_base_patch4_window12_384 swin_large_patch4_window12_384",
    ),
}
_SQUASHED = (
    "dm_nfnet_f0 dm_nfnet_f1 dm_nfnet_f2 dm_nfnet_f3 dm_nfnet_f4 dm_nfnet_f5 dm_nfnet_f6 "
    "efficientnet_b5 tf_efficientnetv2_m tf_efficientnetv2_l tf_efficientnetv2_xl "
    "tf_efficientnetv2_b3 vit_medium_patch16_gap_384 convnextv2_huge"
)
TABLE |= {
    name: dataclasses.replace(
        TABLE[name], preprocess=_as(TABLE[name].preprocess, crop_mode="squash")
    )
    for name in _SQUASHED.split()
}


def names() -> tuple[str, ...]:
    """All names of the table, in its order."""
    return tuple(TABLE)


def entry(name: str) -> Entry:
    """The table's line for `name`; an unknown one is a `UserError` with the nearest.

    >>> entry("resnet50").preprocess.size
    224
    """
    if name not in TABLE:
        base, tag, _ = name.partition(".")  # timm names the weights of a network by a tag
        if tag and base in TABLE:
            raise UserError(f"Unknown network {name!r}; did you mean {base!r}?")
        raise unknown("network", name, TABLE)
    return TABLE[name]
