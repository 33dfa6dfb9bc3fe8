"""The ATen operators a program of ``torch.export`` may use: those that compute from tensors alone.

Not here: what reads or writes files (``from_file``), gives memory nobody has written (``empty``,
``resize_``), looks past a tensor's own elements (``as_strided``, ``set_``), or leaves out the check
of its indices (``_unsafe_index``). Those in place are the ones layers and assignments become.
"""

from typing import Final

#: By name, for every overload.
COMPUTING: Final = frozenset(
    """
    __and__ __or__ __xor__ _adaptive_avg_pool2d _adaptive_avg_pool3d _assert_async
    _assert_scalar _assert_tensor_metadata _cdist_forward _conj _fft_c2c _fft_c2r _fft_r2c
    _fused_rms_norm _local_scalar_dense _log_softmax _native_batch_norm_legit
    _native_batch_norm_legit_no_training _prelu_kernel _safe_softmax
    _scaled_dot_product_attention_math _scaled_dot_product_cudnn_attention
    _scaled_dot_product_efficient_attention _scaled_dot_product_flash_attention
    _scaled_dot_product_flash_attention_for_cpu _softmax _to_copy _unsafe_view
    _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d
    _upsample_nearest_exact2d abs acos acosh adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d adaptive_max_pool2d add add_ addbmm addcdiv addcmul addmm addmv alias
    all alpha_dropout amax amin aminmax any arange argmax argmin argsort asin asinh atan atan2
    atanh avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm bilinear bitwise_and
    bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor bmm
    broadcast_tensors broadcast_to bucketize cat cdist ceil celu channel_shuffle chunk clamp
    clamp_ clamp_max clamp_max_ clamp_min clamp_min_ clip clone col2im complex concat
    concatenate constant_pad_nd contiguous conv1d conv2d conv3d conv_transpose1d
    conv_transpose2d conv_transpose3d convolution copy copy_ copysign cos cosh cosine_similarity
    count_nonzero cumprod cumsum deg2rad detach detach_ diag_embed diagonal diff div div_ divide
    dot dropout dropout_ einsum elu elu_ embedding eq erf erfc erfinv exp exp2 exp_ expand
    expand_as expm1 eye feature_dropout fft_fft fft_fft2 fft_fftn fft_irfft2 fft_rfft2 fill
    fill_ flatten flip floor floor_divide fmod frac full full_like gather ge gelu glu greater
    greater_equal grid_sampler grid_sampler_2d group_norm gt hardshrink hardsigmoid hardsigmoid_
    hardswish hardswish_ hardtanh hardtanh_ heaviside hstack hypot im2col imag index index_put
    index_put_ index_select instance_norm isclose isfinite isinf isnan item layer_norm le
    leaky_relu leaky_relu_ lerp less less_equal lift_fresh lift_fresh_copy linalg_norm
    linalg_vecdot linalg_vector_norm linear linspace log log10 log1p log2 log_sigmoid
    log_softmax logaddexp logical_and logical_not logical_or logical_xor logit logsumexp lt mT
    masked_fill masked_fill_ masked_scatter masked_select matmul max max_pool1d max_pool2d
    max_pool2d_with_indices max_pool3d maximum mean median meshgrid min minimum mish mish_ mm
    moveaxis movedim mul mul_ multiply mv nan_to_num narrow native_batch_norm native_dropout
    native_group_norm native_layer_norm ne neg neg_ negative new_full new_ones new_zeros nonzero
    nonzero_numpy norm not_equal numpy_T one_hot ones ones_like outer pad permute pixel_shuffle
    pixel_unshuffle polar positive pow prelu prod real reciprocal reflection_pad1d
    reflection_pad2d relu relu6 relu6_ relu_ remainder repeat repeat_interleave
    replication_pad1d replication_pad2d reshape reshape_as resolve_conj resolve_neg rms_norm
    roll round rsqrt rsub scalar_tensor scaled_dot_product_attention scatter scatter_
    scatter_add scatter_reduce select select_scatter selu selu_ sgn sigmoid sigmoid_ sign
    signbit silu silu_ sin sinc sinh slice slice_scatter softmax softplus softshrink sort split
    split_with_sizes sqrt square squeeze stack std std_mean sub sub_ subtract sum swapaxes
    swapdims sym_constrain_range sym_constrain_range_for_size sym_numel sym_size t
    take_along_dim tan tanh tanh_ tensor_split tensordot threshold tile to topk transpose tril
    tril_indices triu triu_indices true_divide trunc type_as unbind unflatten unfold unsqueeze
    upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
    upsample_nearest2d var var_mean view view_as view_as_complex view_as_real vstack where xlogy
    zero_ zeros zeros_like
    """.split()  # noqa: SIM905 - a list literal is four hundred lines
)
