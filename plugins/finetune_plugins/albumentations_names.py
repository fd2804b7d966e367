"""Names of the transforms of albumentations 2.0.8, so that recipes are checked without importing it."""

from __future__ import annotations

_NAMES = """
AdditiveNoise AdvancedBlur Affine AtLeastOneBBoxRandomCrop AutoContrast BBoxSafeRandomCrop Blur CLAHE CenterCrop
CenterCrop3D ChannelDropout ChannelShuffle ChromaticAberration CoarseDropout CoarseDropout3D ColorJitter Compose
ConstrainedCoarseDropout Crop CropAndPad CropNonEmptyMaskIfExists CubicSymmetry D4 Defocus Downscale
DualTransform ElasticTransform Emboss Equalize Erasing FDA FancyPCA FrequencyMasking FromFloat GaussNoise
GaussianBlur GlassBlur GridDistortion GridDropout GridElasticDeform HEStain HistogramMatching HorizontalFlip
HueSaturationValue ISONoise Illumination ImageCompression ImageOnlyTransform InvertImg Lambda LongestMaxSize
MaskDropout MedianBlur Morphological Mosaic MotionBlur MultiplicativeNoise NoOp Normalize OneOf OneOrOther
OpticalDistortion OverlayElements Pad Pad3D PadIfNeeded PadIfNeeded3D Perspective PiecewiseAffine
PixelDistributionAdaptation PixelDropout PlanckianJitter PlasmaBrightnessContrast PlasmaShadow Posterize
RGBShift RandomBrightnessContrast RandomCrop RandomCrop3D RandomCropFromBorders RandomCropNearBBox RandomFog
RandomGamma RandomGravel RandomGridShuffle RandomOrder RandomRain RandomResizedCrop RandomRotate90 RandomScale
RandomShadow RandomSizedBBoxSafeCrop RandomSizedCrop RandomSnow RandomSunFlare RandomToneCurve ReplayCompose
Resize RingingOvershoot Rotate SafeRotate SaltAndPepper SelectiveChannelTransform Sequential Sharpen
ShiftScaleRotate ShotNoise SmallestMaxSize Solarize SomeOf Spatter SquareSymmetry Superpixels TextImage
ThinPlateSpline TimeMasking TimeReverse ToFloat ToGray ToRGB ToSepia Transform3D Transpose UnsharpMask
VerticalFlip XYMasking ZoomBlur
"""
TRANSFORMS = tuple(_NAMES.split())

# The schema of ``ops`` for editors: a name, or a name with the transform's arguments.
OP_SCHEMA = {
    "anyOf": [
        {"enum": list(TRANSFORMS)},
        {
            "type": "object",
            "properties": {name: {"type": ["object", "null"]} for name in TRANSFORMS},
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        },
    ]
}
