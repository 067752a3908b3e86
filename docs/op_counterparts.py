"""What each family of ops is called elsewhere, where definitions differ, how weights move: the data of docs/ops.md.

In the columns `F` is torch.nn.functional, `nnx` is flax.nnx, and a bare name of Keras's is a layer. Weights are NumPy
arrays, of two spatial axes where axes are numbered.
"""

from typing import NamedTuple


class Entry(NamedTuple):
    """One family: its kind, the names in cnnjax.ops, the four counterparts, the differences, and the weights."""

    kind: str
    ops: str
    torch: str
    jax: str
    keras: str
    onnx: str
    differences: str
    weights: str = ""


NONE = "-"

COUNTERPARTS = {
    "conv": Entry(
        "Convolution",
        "conv1d conv2d conv3d",
        torch="`F.conv1d`, `F.conv2d`, `F.conv3d`",
        jax="`lax.conv_general_dilated`, `nnx.Conv`",
        keras="`Conv1D`, `Conv2D`, `Conv3D`, `keras.ops.conv`",
        onnx="`Conv`",
        differences='The padding is "SAME" if none is given, as in Flax; PyTorch and ONNX add none, and Keras is'
        ' "valid". PyTorch\'s "same", which knows stride 1 alone, is "SAME"; ONNX\'s SAME_UPPER is "SAME", and its pads'
        " are all lows, then all highs. PyTorch's padding_mode with other amounts than ours by name: `pad` first.",
        weights="PyTorch and ONNX: `weight.transpose(2, 3, 1, 0)`, grouped too; in any rank"
        " `np.moveaxis(weight, (0, 1), (-1, -2))`. Flax and Keras: as they are.",
    ),
    "conv_transpose": Entry(
        "Convolution",
        "conv_transpose1d conv_transpose2d conv_transpose3d",
        torch="`F.conv_transpose1d`, `F.conv_transpose2d`, `F.conv_transpose3d`",
        jax="`lax.conv_transpose`, `nnx.ConvTranspose`",
        keras="`Conv1DTranspose`, `Conv2DTranspose`, `Conv3DTranspose`, `keras.ops.conv_transpose`",
        onnx="`ConvTranspose`",
        differences='PyTorch\'s definition, but the padding is "SAME" (n * stride pixels) if none is given, and its'
        " default is 0. Amounts crop the result; Flax's pad x, and p there is dilation * (k - 1) - p here. Where the"
        ' window is smaller than the stride, "VALID" in Flax and Keras adds zeros at the end:'
        " `output_padding=stride - k`. For ONNX's output_shape and auto_pad see the docstring of `conv_transpose2d`.",
        weights="PyTorch and ONNX: `weight.transpose(2, 3, 0, 1)`; in any rank `np.moveaxis(weight, (0, 1), (-2, -1))`."
        " Keras: `kernel.swapaxes(2, 3)`. Flax lies flipped: `kernel[::-1, ::-1]`, but with transpose_kernel=True"
        " `kernel.swapaxes(2, 3)`.",
    ),
    "depthwise_conv": Entry(
        "Convolution",
        "depthwise_conv1d depthwise_conv2d depthwise_conv3d",
        torch="`F.conv2d` with groups=C",
        jax="`nnx.Conv` with feature_group_count=C",
        keras="`DepthwiseConv1D`, `DepthwiseConv2D`, `keras.ops.depthwise_conv`",
        onnx="`Conv` with group=C",
        differences="As `conv2d`. The number of filters a channel is read from the kernel. Keras has no 3-D one.",
        weights="PyTorch and ONNX: `weight.transpose(2, 3, 1, 0)`. Flax: as it is. Keras, (h, w, C, M):"
        " `kernel.reshape(h, w, 1, C * M)`.",
    ),
    "separable_conv": Entry(
        "Convolution",
        "separable_conv1d separable_conv2d separable_conv3d",
        torch="two `F.conv2d`",
        jax="two `nnx.Conv`",
        keras="`SeparableConv1D`, `SeparableConv2D`, `keras.ops.separable_conv`",
        onnx="two `Conv`",
        differences="As in Keras nothing lies between the two parts, and the bias comes last. What carries the name in"
        " PyTorch often has a bias or a normalisation between them: `depthwise_conv2d`, then `conv2d`.",
        weights="Keras: `depthwise_kernel.reshape(h, w, 1, C * M)`, the pointwise kernel as it is. PyTorch and ONNX:"
        " `weight.transpose(2, 3, 1, 0)`, both. Flax: as they are.",
    ),
    "local_conv": Entry(
        "Convolution",
        "local_conv1d local_conv2d",
        torch="`F.unfold` and a product",
        jax="`lax.conv_general_dilated_local`, `flax.linen.ConvLocal`",
        keras="`LocallyConnected1D`, `LocallyConnected2D` of Keras 2",
        onnx=NONE,
        differences='The padding is "SAME" if none is given. The bias may differ from place to place, as theirs, or be'
        " one value an output channel.",
        weights="lax and linen: as they are. Keras 2, implementation 1:"
        " `kernel.reshape(Ho, Wo, h * w, C, O).swapaxes(2, 3).reshape(Ho, Wo, C * h * w, O)`.",
    ),
    "deform_conv": Entry(
        "Convolution",
        "deform_conv2d",
        torch="`torchvision.ops.deform_conv2d`",
        jax=NONE,
        keras=NONE,
        onnx="`DeformConv`",
        differences='The padding is "SAME" if none is given, theirs 0. Their order of offsets, (y, x), and of the mask,'
        " in the last axis: `offset.transpose(0, 2, 3, 1)`. torchvision reads groups and offset groups off the shapes;"
        " here they are said.",
        weights="`weight.transpose(2, 3, 1, 0)`.",
    ),
    "max_pool": Entry(
        "Pooling",
        "max_pool1d max_pool2d max_pool3d",
        torch="`F.max_pool1d`, `F.max_pool2d`, `F.max_pool3d`",
        jax="`lax.reduce_window`, `nnx.max_pool`",
        keras="`MaxPooling1D`, `MaxPooling2D`, `MaxPooling3D`, `keras.ops.max_pool`",
        onnx="`MaxPool`",
        differences="The stride is the window if none is given, as in PyTorch and Keras; in Flax and ONNX it is 1."
        " PyTorch pads by half a window at most; here every window must see a pixel.",
    ),
    "max_pool_with_indices": Entry(
        "Pooling",
        "max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices",
        torch="`F.max_pool2d` with return_indices=True, also 1d and 3d",
        jax=NONE,
        keras="`tf.nn.max_pool_with_argmax`",
        onnx="`MaxPool`, its second output",
        differences="PyTorch's indices, flat in the plane of one picture and channel, as int32. ONNX counts over all of"
        " (N, C, H, W): `indices % (H * W)`; with storage_order=1 down the columns. TensorFlow counts channels too:"
        " `indices // C`.",
    ),
    "max_unpool": Entry(
        "Pooling",
        "max_unpool1d max_unpool2d max_unpool3d",
        torch="`F.max_unpool1d`, `F.max_unpool2d`, `F.max_unpool3d`",
        jax=NONE,
        keras=NONE,
        onnx="`MaxUnpool`",
        differences="output_size names spatial axes alone. An index outside is dropped; PyTorch refuses it. ONNX's I"
        " counts over all of (N, C, H, W): `indices % (H * W)`; its output_shape[2:] is output_size in ONNX Runtime,"
        " where its published example only adds zeros at the end.",
    ),
    "min_pool": Entry(
        "Pooling",
        "min_pool1d min_pool2d min_pool3d",
        torch="`-F.max_pool2d(-x, ...)`",
        jax="`nnx.min_pool`",
        keras="`-keras.ops.max_pool(-x, ...)`",
        onnx="`Neg`, `MaxPool`, `Neg`",
        differences="As `max_pool2d`.",
    ),
    "avg_pool": Entry(
        "Pooling",
        "avg_pool1d avg_pool2d avg_pool3d",
        torch="`F.avg_pool1d`, `F.avg_pool2d`, `F.avg_pool3d`",
        jax="`nnx.avg_pool`",
        keras="`AveragePooling1D`, `AveragePooling2D`, `AveragePooling3D`, `keras.ops.average_pool`",
        onnx="`AveragePool`",
        differences="The stride is the window if none is given, as in PyTorch and Keras; in Flax and ONNX it is 1."
        " Zeros of the padding count in the divisor, as in PyTorch and Flax; Keras and ONNX leave them out:"
        " `count_include_pad=False`. PyTorch's divisor_override d is a factor of prod(window) / d behind ours, with"
        " count_include_pad=True; pad at the end by what ceil_mode lets hang over, which here never counts. PyTorch has"
        " no dilation.",
    ),
    "lp_pool": Entry(
        "Pooling",
        "lp_pool1d lp_pool2d lp_pool3d",
        torch="`F.lp_pool1d`, `F.lp_pool2d`, `F.lp_pool3d`",
        jax=NONE,
        keras=NONE,
        onnx="`LpPool`",
        differences="The norm is of |x|, as in ONNX. PyTorch takes x ** p, so for odd p negative elements cancel"
        " positive ones (a negative sum gives NaN), and scales the sum of a window that ceil_mode lets hang over; it"
        " has neither padding nor dilation.",
    ),
    "adaptive_avg_pool": Entry(
        "Pooling",
        "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d",
        torch="`F.adaptive_avg_pool1d`, `F.adaptive_avg_pool2d`, `F.adaptive_avg_pool3d`",
        jax=NONE,
        keras="`AdaptiveAveragePooling1D`, `AdaptiveAveragePooling2D`, `AdaptiveAveragePooling3D`",
        onnx=NONE,
        differences="PyTorch's windows, which Keras has too; None keeps an axis.",
    ),
    "adaptive_max_pool": Entry(
        "Pooling",
        "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d adaptive_max_pool1d_with_indices"
        " adaptive_max_pool2d_with_indices adaptive_max_pool3d_with_indices",
        torch="`F.adaptive_max_pool1d`, `F.adaptive_max_pool2d`, `F.adaptive_max_pool3d`, with return_indices=True",
        jax=NONE,
        keras="`AdaptiveMaxPooling1D`, `AdaptiveMaxPooling2D`, `AdaptiveMaxPooling3D`",
        onnx=NONE,
        differences="PyTorch's windows and indices, the latter as int32.",
    ),
    "global_pool": Entry(
        "Pooling",
        "global_avg_pool global_max_pool",
        torch="`F.adaptive_avg_pool2d(x, 1)`, `F.adaptive_max_pool2d(x, 1)`",
        jax="`x.mean((1, 2))`, `x.max((1, 2))`",
        keras="`GlobalAveragePooling1D` to `3D`, `GlobalMaxPooling1D` to `3D`",
        onnx="`GlobalAveragePool`, `GlobalMaxPool`",
        differences="The result is (N, C), as in Keras; PyTorch and ONNX keep spatial axes of one pixel."
        " `x.max` shares the gradient among equal maxima, which here goes to the first.",
    ),
    "fractional_max_pool": Entry(
        "Pooling",
        "fractional_max_pool2d fractional_max_pool2d_with_indices",
        torch="`F.fractional_max_pool2d`, with return_indices=True",
        jax=NONE,
        keras="`tf.nn.fractional_max_pool`",
        onnx=NONE,
        differences="Drawn from a key, or placed by `samples`, PyTorch's _random_samples. TensorFlow draws the same"
        " windows for every picture and channel. There is no 3-D one.",
    ),
    "stochastic_pool": Entry(
        "Pooling",
        "stochastic_pool2d",
        torch=NONE,
        jax=NONE,
        keras=NONE,
        onnx=NONE,
        differences="The paper's; negative activations count as 0.",
    ),
    "blur_pool": Entry(
        "Pooling",
        "blur_pool2d",
        torch="`antialiased_cnns.BlurPool`, `kornia.filters.blur_pool2d`",
        jax=NONE,
        keras=NONE,
        onnx=NONE,
        differences="The padding is REFLECT as in antialiased_cnns, whose filter is of 4 pixels by default, ours of 3."
        " Kornia fills in zeros.",
    ),
    "spatial_pyramid_pool": Entry(
        "Pooling",
        "spatial_pyramid_pool2d",
        torch=NONE,
        jax=NONE,
        keras=NONE,
        onnx=NONE,
        differences="Adaptive pools side by side: the cells of a level row by row, the channels fastest. A"
        " channels-first one puts each channel's cells together, so a dense kernel behind it must be permuted.",
    ),
    "dense": Entry(
        "Dense layers",
        "dense",
        torch="`F.linear`",
        jax="`nnx.Linear`",
        keras="`Dense`",
        onnx="`Gemm`, `MatMul`",
        differences="None; any leading axes. ONNX's Gemm takes two axes, transposes either factor, scales by alpha and"
        " beta, and adds a bias of any shape that broadcasts.",
        weights="PyTorch: `weight.T`; behind a flattened (C, H, W):"
        " `weight.reshape(O, C, H, W).transpose(2, 3, 1, 0).reshape(-1, O)`. ONNX: `B.T` if transB=1. Flax and Keras:"
        " as they are.",
    ),
    "flatten": Entry(
        "Dense layers",
        "flatten",
        torch="`torch.flatten(x, 1)`",
        jax="`x.reshape(x.shape[0], -1)`",
        keras="`Flatten`",
        onnx="`Flatten`",
        differences="The order is (H, W, C), as in Keras; PyTorch's and ONNX's is (C, H, W). Other first axes than 1,"
        " which they can name, are a reshape.",
        weights="Those of the dense layer behind it: see `dense`.",
    ),
    "batch_norm": Entry(
        "Normalisation",
        "batch_norm",
        torch="`F.batch_norm`",
        jax="`nnx.BatchNorm`",
        keras="`BatchNormalization`",
        onnx="`BatchNormalization`",
        differences="The statistics are returned, not changed in place. decay is the momentum of Flax, Keras and ONNX,"
        " and 1 - PyTorch's: 0.99 as in Flax and Keras, 0.9 in ONNX and PyTorch. The"
        " remembered variance is the biased one, as there; PyTorch's is the unbiased one, n / (n - 1) times that of the"
        " batch. eps is 1e-5 as in PyTorch, Flax and ONNX; Keras's is 1e-3.",
        weights="(scale, bias, mean, var) are PyTorch's (weight, bias, running_mean, running_var), Keras's (gamma,"
        " beta, moving_mean, moving_variance), ONNX's (scale, B, input_mean, input_var).",
    ),
    "layer_norm": Entry(
        "Normalisation",
        "layer_norm",
        torch="`F.layer_norm`",
        jax="`nnx.LayerNorm`",
        keras="`LayerNormalization`",
        onnx="`LayerNormalization`",
        differences="eps is 1e-6 as in Flax; 1e-5 in PyTorch and ONNX, 1e-3 in Keras. Any axes, where PyTorch takes the"
        " last ones and ONNX all from one on. ONNX's Mean and InvStdDev are not returned.",
        weights="(scale, bias) are PyTorch's (weight, bias), Keras's (gamma, beta). Over (C, H, W) in PyTorch:"
        " `weight.transpose(1, 2, 0)` and `axis=(1, 2, 3)`.",
    ),
    "rms_norm": Entry(
        "Normalisation",
        "rms_norm",
        torch="`F.rms_norm`",
        jax="`nnx.RMSNorm`",
        keras="`RMSNormalization`",
        onnx="`RMSNormalization`",
        differences="eps is 1e-6 as in Flax and Keras; 1e-5 in ONNX, in PyTorch the machine epsilon of x, for half"
        " precision that of float32. Keras's"
        " LayerNormalization with rms_scaling=True is not this: it divides by the deviation.",
        weights="scale is PyTorch's weight.",
    ),
    "group_norm": Entry(
        "Normalisation",
        "group_norm",
        torch="`F.group_norm`",
        jax="`nnx.GroupNorm`",
        keras="`GroupNormalization`",
        onnx="`GroupNormalization`",
        differences="eps is 1e-6 as in Flax; 1e-5 in PyTorch and ONNX, 1e-3 in Keras. ONNX before opset 21 had a scale"
        " a group, not a channel: `np.repeat(scale, C // groups)`.",
        weights="(scale, bias) are PyTorch's (weight, bias), Keras's (gamma, beta).",
    ),
    "instance_norm": Entry(
        "Normalisation",
        "instance_norm",
        torch="`F.instance_norm`",
        jax="`nnx.InstanceNorm`",
        keras="`GroupNormalization` with groups=-1",
        onnx="`InstanceNormalization`",
        differences="eps is 1e-6 as in Flax; 1e-5 in PyTorch and ONNX, 1e-3 in Keras. PyTorch's use_input_stats=False"
        " is `batch_norm` with train=False.",
        weights="(scale, bias) are PyTorch's (weight, bias), Keras's (gamma, beta), ONNX's (scale, B).",
    ),
    "local_response_norm": Entry(
        "Normalisation",
        "local_response_norm",
        torch="`F.local_response_norm`",
        jax=NONE,
        keras="`tf.nn.local_response_normalization`",
        onnx="`LRN`",
        differences="alpha is divided by size, as in PyTorch and ONNX; for TensorFlow's give size = 2 * depth_radius +"
        " 1 and alpha = size * theirs. An even size takes the extra channel before the centre, as in PyTorch; ONNX"
        " after it: `x[..., ::-1]`, and the result alike.",
    ),
    "weight_standardize": Entry(
        "Normalisation",
        "weight_standardize",
        torch="`timm.layers.StdConv2d`",
        jax=NONE,
        keras=NONE,
        onnx=NONE,
        differences="A function of the kernel, applied in each step. eps is under the root, as in timm."
        " flax.nnx.WeightNorm is another thing: it divides by a norm.",
        weights="The raw kernel moves as that of `conv`.",
    ),
    "dropout": Entry(
        "Regularisation",
        "dropout",
        torch="`F.dropout`",
        jax="`nnx.Dropout`",
        keras="`Dropout`",
        onnx="`Dropout`",
        differences="Drawn from a key, so never the same elements as elsewhere. There is no switch: in evaluation leave"
        " the call out, as ONNX's without training_mode does nothing.",
    ),
    "spatial_dropout": Entry(
        "Regularisation",
        "spatial_dropout",
        torch="`F.dropout1d`, `F.dropout2d`, `F.dropout3d`",
        jax="`nnx.Dropout` with broadcast_dims=(1, 2)",
        keras="`SpatialDropout1D`, `SpatialDropout2D`, `SpatialDropout3D`",
        onnx=NONE,
        differences="As `dropout`; whole channels of each example.",
    ),
    "drop_block": Entry(
        "Regularisation",
        "drop_block2d",
        torch="`torchvision.ops.drop_block2d`",
        jax=NONE,
        keras=NONE,
        onnx=NONE,
        differences="As `dropout`. The share and the scale are torchvision's; there a block larger than the picture"
        " shrinks to it, here it is an error.",
    ),
    "drop_path": Entry(
        "Regularisation",
        "drop_path",
        torch='`torchvision.ops.stochastic_depth` with mode="row"',
        jax="`nnx.Dropout` with broadcast_dims=(1, 2, 3)",
        keras="`Dropout` with noise_shape=(N, 1, 1, 1)",
        onnx=NONE,
        differences="As `dropout`; whole examples.",
    ),
    "pad": Entry(
        "Padding, sampling, rearranging",
        "pad",
        torch="`F.pad`",
        jax="`jnp.pad`, `lax.pad`",
        keras="`ZeroPadding1D` to `3D`, `Cropping1D` to `3D`, `keras.ops.pad`",
        onnx="`Pad`",
        differences="Spatial axes alone, one (low, high) pair each from the first on; PyTorch's flat amounts begin with"
        ' the last, ONNX\'s are all lows, then all highs, of N and C too. "replicate" and "circular" are'
        ' "edge" and "wrap" in JAX, Keras and ONNX. There is no "symmetric".',
    ),
    "resize": Entry(
        "Padding, sampling, rearranging",
        "resize",
        torch="`F.interpolate`",
        jax="`jax.image.resize`",
        keras="`UpSampling1D` to `3D`, `Resizing`, `keras.ops.image.resize`",
        onnx="`Resize`",
        differences="The method is linear if none is given; PyTorch's and ONNX's is nearest. `jax.image` and Keras's"
        " resize call nearest what is nearest_exact here and in PyTorch; their cubic is"
        ' `method="cubic", cubic_a=-0.5, exclude_outside=True`. `jax.image` antialiases unless told not to. PyTorch\'s'
        " bilinear, trilinear and bicubic are linear and cubic. ONNX's nearest_mode is `rounding`, and"
        " round_prefer_floor if none is given; its antialias is with `exclude_outside=False`, and with align_corners it"
        " is another than ours, PyTorch's. Its tf_crop_and_resize is `grid_sample2d` with align_corners and padding"
        " border, but for the extrapolation_value; its keep_aspect_ratio_policy is a size to compute.",
    ),
    "grid_sample": Entry(
        "Padding, sampling, rearranging",
        "grid_sample2d grid_sample3d",
        torch="`F.grid_sample`",
        jax="`jax.scipy.ndimage.map_coordinates`",
        keras="`keras.ops.image.map_coordinates`",
        onnx="`GridSample`",
        differences="PyTorch's grid in [-1, 1], (x, y) or (x, y, z), and options; its bilinear and bicubic are linear"
        " and cubic, as in ONNX from opset 20 on. map_coordinates takes coordinates in pixels, the row first. There is"
        " no `F.affine_grid`.",
    ),
    "pixel_shuffle": Entry(
        "Padding, sampling, rearranging",
        "pixel_shuffle pixel_unshuffle",
        torch="`F.pixel_shuffle`, `F.pixel_unshuffle`",
        jax=NONE,
        keras="`keras.ops.depth_to_space`, `keras.ops.space_to_depth`",
        onnx="`DepthToSpace`, `SpaceToDepth`",
        differences="PyTorch's order of channels, ONNX's mode CRD. Keras, TensorFlow and ONNX's default, mode DCR, put"
        " the channels of the larger picture fastest: `x.reshape(N, H, W, r * r, c).swapaxes(-1, -2).reshape(x.shape)`"
        " goes before our `pixel_shuffle`.",
        weights="Or reorder, once, the kernel of the convolution that makes such channels:"
        " `kernel.reshape(h, w, I, r * r, c).swapaxes(-1, -2).reshape(kernel.shape)`, and its bias alike.",
    ),
    "patches": Entry(
        "Padding, sampling, rearranging",
        "unfold fold",
        torch="`F.unfold`, `F.fold`",
        jax="`lax.conv_general_dilated_patches`",
        keras="`keras.ops.unfold`, `keras.ops.fold`, `keras.ops.image.extract_patches`",
        onnx="`Col2Im` is fold",
        differences="The windows keep their axes and the taps come last, as in JAX; PyTorch's (N, P, windows) is"
        " `y.reshape(N, -1, P).transpose(0, 2, 1)`. The taps of a channel are neighbours, as in PyTorch and JAX;"
        " extract_patches of Keras and TensorFlow keeps the channels of a tap together:"
        " `y.reshape(*y.shape[:-1], C, h * w).swapaxes(-1, -2).reshape(y.shape)`.",
        weights="Of a dense layer on PyTorch's rows: `weight.T`. A convolution's kernel as one:"
        " `kernel.transpose(2, 0, 1, 3).reshape(-1, O)`.",
    ),
}
