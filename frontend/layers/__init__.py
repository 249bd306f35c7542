"""Layers: the functions with state that models are made of."""

from typing import TYPE_CHECKING

from gnomon.lazy import lazily

if TYPE_CHECKING:
    from gnomon.layers.activation import ELU, Activation, LeakyReLU, PReLU, ReLU, Softmax
    from gnomon.layers.attention import AdditiveAttention, Attention
    from gnomon.layers.augmentation import (
        RandomCrop,
        RandomElasticTransform,
        RandomFlip,
        RandomPerspective,
        RandomRotation,
        RandomShear,
        RandomTranslation,
        RandomZoom,
    )
    from gnomon.layers.basic import ActivityRegularization, Identity, Lambda, Rescaling
    from gnomon.layers.batch_normalization import BatchNormalization
    from gnomon.layers.colour_augmentation import (
        RandomBrightness,
        RandomColorDegeneration,
        RandomColorJitter,
        RandomContrast,
        RandomGrayscale,
        RandomHue,
        RandomSaturation,
    )
    from gnomon.layers.conv_lstm import ConvLSTM1D, ConvLSTM2D, ConvLSTM3D
    from gnomon.layers.convolution import Conv1D, Conv2D, Conv3D, Convolution1D, Convolution2D, Convolution3D
    from gnomon.layers.convolution_transpose import (
        Conv1DTranspose,
        Conv2DTranspose,
        Conv3DTranspose,
        Convolution1DTranspose,
        Convolution2DTranspose,
        Convolution3DTranspose,
    )
    from gnomon.layers.dense import Dense
    from gnomon.layers.depthwise import (
        DepthwiseConv1D,
        DepthwiseConv2D,
        SeparableConv1D,
        SeparableConv2D,
        SeparableConvolution1D,
        SeparableConvolution2D,
    )
    from gnomon.layers.einsum_dense import EinsumDense
    from gnomon.layers.embedding import Embedding
    from gnomon.layers.input import Input, InputLayer
    from gnomon.layers.input_spec import InputSpec
    from gnomon.layers.layer import Layer
    from gnomon.layers.masking import Masking
    from gnomon.layers.merge import (
        Add,
        Average,
        Concatenate,
        Dot,
        Maximum,
        Minimum,
        Multiply,
        Subtract,
        add,
        average,
        concatenate,
        dot,
        maximum,
        minimum,
        multiply,
        subtract,
    )
    from gnomon.layers.mixing import AugMix, CutMix, MixUp, Pipeline, RandAugment
    from gnomon.layers.multi_head_attention import GroupedQueryAttention, MultiHeadAttention
    from gnomon.layers.multi_head_attention import GroupedQueryAttention as GroupQueryAttention
    from gnomon.layers.noise import (
        AlphaDropout,
        Dropout,
        GaussianDropout,
        GaussianNoise,
        SpatialDropout1D,
        SpatialDropout2D,
        SpatialDropout3D,
    )
    from gnomon.layers.normalization import (
        GroupNormalization,
        LayerNormalization,
        RMSNormalization,
        UnitNormalization,
    )
    from gnomon.layers.policy import DTypePolicy
    from gnomon.layers.pooling import (
        AdaptiveAveragePooling1D,
        AdaptiveAveragePooling2D,
        AdaptiveAveragePooling3D,
        AdaptiveMaxPooling1D,
        AdaptiveMaxPooling2D,
        AdaptiveMaxPooling3D,
        AveragePooling1D,
        AveragePooling2D,
        AveragePooling3D,
        AvgPool1D,
        AvgPool2D,
        AvgPool3D,
        GlobalAveragePooling1D,
        GlobalAveragePooling2D,
        GlobalAveragePooling3D,
        GlobalAvgPool1D,
        GlobalAvgPool2D,
        GlobalAvgPool3D,
        GlobalMaxPool1D,
        GlobalMaxPool2D,
        GlobalMaxPool3D,
        GlobalMaxPooling1D,
        GlobalMaxPooling2D,
        GlobalMaxPooling3D,
        MaxPool1D,
        MaxPool2D,
        MaxPool3D,
        MaxPooling1D,
        MaxPooling2D,
        MaxPooling3D,
    )
    from gnomon.layers.preprocessing import (
        CategoryEncoding,
        Discretization,
        HashedCrossing,
        Hashing,
        IntegerLookup,
        Normalization,
        StringLookup,
        TextVectorization,
    )
    from gnomon.layers.recurrent import (
        GRU,
        LSTM,
        RNN,
        Bidirectional,
        GRUCell,
        LSTMCell,
        SimpleRNN,
        SimpleRNNCell,
        StackedRNNCells,
    )
    from gnomon.layers.reshape import Flatten, Permute, RepeatVector, Reshape
    from gnomon.layers.resizing import CenterCrop, Resizing
    from gnomon.layers.spatial import (
        Cropping1D,
        Cropping2D,
        Cropping3D,
        UpSampling1D,
        UpSampling2D,
        UpSampling3D,
        ZeroPadding1D,
        ZeroPadding2D,
        ZeroPadding3D,
    )
    from gnomon.layers.spectral_normalization import SpectralNormalization
    from gnomon.layers.time_distributed import TimeDistributed
    from gnomon.layers.value_augmentation import (
        AutoContrast,
        Equalization,
        RandomErasing,
        RandomGaussianBlur,
        RandomInvert,
        RandomPosterization,
        RandomSharpness,
        Solarization,
    )
    from gnomon.layers.wrapper import Wrapper

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, __file__)

__all__ = [
    "Activation", "ActivityRegularization", "AdaptiveAveragePooling1D", "AdaptiveAveragePooling2D",
    "AdaptiveAveragePooling3D", "AdaptiveMaxPooling1D", "AdaptiveMaxPooling2D", "AdaptiveMaxPooling3D", "Add",
    "AdditiveAttention", "AlphaDropout", "Attention", "AugMix", "AutoContrast", "Average", "AveragePooling1D",
    "AveragePooling2D", "AveragePooling3D", "AvgPool1D", "AvgPool2D", "AvgPool3D", "BatchNormalization",
    "Bidirectional", "CategoryEncoding", "CenterCrop", "Concatenate", "Conv1D", "Conv1DTranspose", "Conv2D",
    "Conv2DTranspose", "Conv3D", "Conv3DTranspose", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "Convolution1D",
    "Convolution1DTranspose", "Convolution2D", "Convolution2DTranspose", "Convolution3D", "Convolution3DTranspose",
    "Cropping1D", "Cropping2D", "Cropping3D", "CutMix", "DTypePolicy", "Dense", "DepthwiseConv1D", "DepthwiseConv2D",
    "Discretization", "Dot", "Dropout", "ELU", "EinsumDense", "Embedding", "Equalization", "Flatten", "GRU", "GRUCell",
    "GaussianDropout", "GaussianNoise", "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D",
    "GlobalAvgPool1D", "GlobalAvgPool2D", "GlobalAvgPool3D", "GlobalMaxPool1D", "GlobalMaxPool2D", "GlobalMaxPool3D",
    "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D", "GroupNormalization", "GroupQueryAttention",
    "GroupedQueryAttention", "HashedCrossing", "Hashing", "Identity", "Input", "InputLayer", "InputSpec",
    "IntegerLookup", "LSTM", "LSTMCell", "Lambda", "Layer", "LayerNormalization", "LeakyReLU", "Masking", "MaxPool1D",
    "MaxPool2D", "MaxPool3D", "MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "Maximum", "Minimum", "MixUp",
    "MultiHeadAttention", "Multiply", "Normalization", "PReLU", "Permute", "Pipeline", "RMSNormalization", "RNN",
    "RandAugment", "RandomBrightness", "RandomColorDegeneration", "RandomColorJitter", "RandomContrast", "RandomCrop",
    "RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomHue",
    "RandomInvert", "RandomPerspective", "RandomPosterization", "RandomRotation", "RandomSaturation",
    "RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom", "ReLU", "RepeatVector", "Rescaling",
    "Reshape", "Resizing", "SeparableConv1D", "SeparableConv2D", "SeparableConvolution1D", "SeparableConvolution2D",
    "SimpleRNN", "SimpleRNNCell", "Softmax", "Solarization", "SpatialDropout1D", "SpatialDropout2D",
    "SpatialDropout3D", "SpectralNormalization", "StackedRNNCells", "StringLookup", "Subtract", "TextVectorization",
    "TimeDistributed", "UnitNormalization", "UpSampling1D", "UpSampling2D", "UpSampling3D", "Wrapper", "ZeroPadding1D",
    "ZeroPadding2D", "ZeroPadding3D", "add", "average", "concatenate", "dot", "maximum", "minimum", "multiply",
    "subtract",
]  # fmt: skip
