//! Arguments of the kernels of `kernels/*.cu`: named and ordered as there, which a test compares with the sources.

/// Where something begins on the device; 0 for nothing.
pub(super) type Address = u64;

/// One argument of a launch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Argument<'a> {
    Address(&'a Address),
    Int(&'a i32),
    Long(&'a i64),
    Unsigned(&'a u32),
    Float(&'a f32),
}

macro_rules! argument {
    ($($type:ty => $kind:ident),*) => {
        $(impl<'a> From<&'a $type> for Argument<'a> {
            fn from(value: &'a $type) -> Self {
                Self::$kind(value)
            }
        })*
    };
}

argument!(Address => Address, i32 => Int, i64 => Long, u32 => Unsigned, f32 => Float);

/// All arguments of one kernel.
pub(super) trait Arguments {
    /// Returns name and value of each, in the kernel's order.
    fn list(&self) -> Vec<(&'static str, Argument<'_>)>;
}

macro_rules! arguments {
    ($(#[$about:meta])* $kernel:ident { $($name:ident: $type:ty),* $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        pub(super) struct $kernel {
            $(pub(super) $name: $type,)*
        }

        impl Arguments for $kernel {
            fn list(&self) -> Vec<(&'static str, Argument<'_>)> {
                vec![$((stringify!($name), (&self.$name).into())),*]
            }
        }
    };
}

arguments! {
    /// Of `indexer_scores_*`.
    Scoring {
        q: Address, k: Address, w: Address, q_scale: Address, k_scale: Address, scores: Address,
        scale: f32, heads: i32, dim_bytes: i32, rows: i32, first: i32, keys: i32, width: u32,
    }
}

arguments! {
    /// Of `indexer_select`.
    Select { scores: Address, width: u32, first: i32, keys: i32, k: i32, topk: Address }
}

arguments! {
    /// Of the kernels of attention over selected keys.
    Attend {
        q: Address, q_rope: Address, k: Address, k_rope: Address, v: Address, topk: Address, mixed: Address,
        parts: Address, sums: Address, scale: f32, rows: i32, heads: i32, groups: i32, latent: i32, rope: i32,
        key_head: i32, topk_width: i32, first: i32, keys: i32, q_token: i64, q_head: i64, q_rope_token: i64,
        q_rope_head: i64, out_token: i64, out_head: i64,
    }
}

arguments! {
    /// Of `sparse_merge`.
    Merge {
        parts: Address, sums: Address, mixed: Address, splits: i32, rows: i32, heads: i32, latent: i32,
        out_token: i64, out_head: i64,
    }
}

arguments! {
    /// Of `fp8_dequantise_*`.
    Dequantise {
        codes: Address, scales: Address, values: Address, rows: i64, columns: i32, block_rows: i32,
        block_columns: i32,
    }
}

arguments! {
    /// Of `fp8_quantise_rows`.
    Quantise { x: Address, codes: Address, scales: Address, rows: i32, columns: i32 }
}

arguments! {
    /// Of `overlap_pairs`.
    Pairs {
        sets: Address, chosen: Address, count: i32, layers: i32, queries: i32, k: i32, keys: u32,
        sums: Address, squares: Address,
    }
}

arguments! {
    /// Of `rows_norm`.
    Norm { x: Address, w: Address, bias: Address, y: Address, eps: f32, rows: i32, width: i32, apart: i64 }
}

arguments! {
    /// Of `rows_rotate`.
    Rotate {
        x: Address, cos: Address, sin: Address, y: Address, rows: i32, heads: i32, dim: i32, offset: i32, half: i32,
        interleaved: i32, positions: i32, apart: i64,
    }
}

arguments! {
    /// Of `rows_swiglu`.
    Swiglu { gate: Address, up: Address, y: Address, count: i64 }
}

arguments! {
    /// Of `rows_choose`.
    Choose { p: Address, bias: Address, ids: Address, rows: i32, experts: i32, k: i32 }
}

arguments! {
    /// Of `experts_gate`.
    Gate {
        x: Address, ids: Address, table: Address, h: Address, k: i32, experts: i32, hidden: i32, width: i32,
    }
}

arguments! {
    /// Of `experts_down`.
    Down {
        h: Address, ids: Address, w: Address, table: Address, y: Address, k: i32, experts: i32, hidden: i32, width: i32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns every kernel of a source: its name (a macro's `NAME` where many are made) and its parameters, type first.
    fn kernels(source: &str) -> Vec<(String, Vec<(String, String)>)> {
        let source = source.replace('\\', " ");
        let kernel = |text: &str| {
            let text = text.trim_start();
            let bounds = |text: &str| text.strip_prefix("__launch_bounds__(").map(str::to_owned);
            let text = bounds(text).map_or(text.to_owned(), |text| {
                let mut depth = 1;
                let inside = |c: char| {
                    depth += i32::from(c == '(') - i32::from(c == ')');
                    depth > 0
                };
                text.trim_start_matches(inside)[1..].to_owned()
            });
            let (name, rest) = text.split_once('(').unwrap();
            let parameters = rest.split(')').next().unwrap().split(',').map(|parameter| {
                let (kind, name) = parameter.trim().rsplit_once([' ', '*']).unwrap();
                let kind = if parameter.contains('*') { "pointer" } else { kind.trim() };
                (kind.to_owned(), name.to_owned())
            });
            (name.trim().to_owned(), parameters.collect())
        };
        source.split("extern \"C\" __global__ void").skip(1).map(kernel).collect()
    }

    fn kind(argument: Argument) -> &'static [&'static str] {
        match argument {
            Argument::Address(_) => &["pointer"],
            Argument::Int(_) => &["int"],
            Argument::Long(_) => &["long long"],
            Argument::Unsigned(_) => &["unsigned", "unsigned int", "uint32_t"],
            Argument::Float(_) => &["float"],
        }
    }

    #[test]
    fn launches_give_every_kernel_what_it_declares() {
        let sources = [
            ("indexer_topk", include_str!("../../../kernels/indexer_topk.cu")),
            ("sparse_mla", include_str!("../../../kernels/sparse_mla.cu")),
            ("fp8_dequant", include_str!("../../../kernels/fp8_dequant.cu")),
            ("overlap", include_str!("../../../kernels/overlap.cu")),
            ("experts", include_str!("../../../kernels/experts.cu")),
            ("rows", include_str!("../../../kernels/rows.cu")),
        ];
        let given = |file: &str, name: &str| -> Box<dyn Arguments> {
            match (file, name) {
                ("indexer_topk", "NAME") => Box::new(Scoring::default()),
                ("indexer_topk", "indexer_select") => Box::new(Select::default()),
                ("sparse_mla", "sparse_merge") => Box::new(Merge::default()),
                ("sparse_mla", _) => Box::new(Attend::default()),
                ("fp8_dequant", "fp8_quantise_rows") => Box::new(Quantise::default()),
                ("fp8_dequant", _) => Box::new(Dequantise::default()),
                ("experts", "experts_gate") => Box::new(Gate::default()),
                ("experts", "experts_down") => Box::new(Down::default()),
                ("rows", "rows_choose") => Box::new(Choose::default()),
                ("rows", "rows_norm") => Box::new(Norm::default()),
                ("rows", "rows_rotate") => Box::new(Rotate::default()),
                ("rows", "rows_swiglu") => Box::new(Swiglu::default()),
                ("overlap", _) => Box::new(Pairs::default()),
                (file, name) => panic!("nothing launches {name} of {file}.cu"),
            }
        };
        let mut found = Vec::new();
        for (file, source) in sources {
            for (name, declared) in kernels(source) {
                let (arguments, place) = (given(file, &name), format!("{name} of {file}.cu"));
                let list = arguments.list();
                assert_eq!(list.len(), declared.len(), "{place}");
                for ((name, argument), (declared_kind, declared)) in list.into_iter().zip(declared) {
                    assert_eq!(name, declared, "{place}");
                    assert!(kind(argument).contains(&declared_kind.as_str()), "{name} of {place} is {declared_kind}");
                }
                found.push(name);
            }
        }
        assert!(found.len() >= 14, "{found:?}");
    }
}
