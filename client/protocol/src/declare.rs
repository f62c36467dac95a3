//! Declares a message once for all its versions.
//!
//! *Called by* the files of `messages`. *Calls* `field`.
//!
//! A field is `name: Type [VERSIONS, nullable VERSIONS, tag NUMBER, default VALUE]`; all but the first are
//! optional, and in this order. Outside its versions a field is left out and reads as its default. A tagged
//! field is written only when it differs from its default, and only in flexible versions; tags ascend.
//! Nesting is as deep as the types are, and no type holds itself.

macro_rules! wire_structs {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $(
                $(#[$field_meta:meta])*
                $field:ident: $type:ty [
                    $versions:expr
                    $(, nullable $nullable:expr)?
                    $(, tag $tag:literal)?
                    $(, default $default:expr)?
                ],
            )*
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $crate::declare::default_value!($($default)?),)* }
            }
        }

        #[cfg(test)]
        impl $crate::messages::tests::generate::Generate for $name {
            fn generate(
                source: &mut $crate::messages::tests::generate::Source<'_>,
                shape: $crate::Shape,
            ) -> Self {
                let mut value = Self::default();
                $(if ($versions).contains(&shape.version) {
                    let shape = $crate::declare::field_shape!(shape, [$($nullable)?]);
                    value.$field = $crate::messages::tests::generate::Generate::generate(source, shape);
                })*
                value
            }
        }

        impl $crate::Field for $name {
            fn read(
                reader: &mut $crate::Reader<'_>,
                shape: $crate::Shape,
            ) -> Result<Self, $crate::DecodeError> {
                let mut value = Self::default();
                $($crate::declare::read_plain!(
                    reader, shape, value.$field, ($versions), [$($nullable)?], [$($tag)?]
                );)*
                if shape.flexible {
                    reader.tagged_fields(|_reader, _tag| {
                        $($crate::declare::read_tagged!(
                            _reader, _tag, shape, value.$field, ($versions), [$($nullable)?], [$($tag)?]
                        );)*
                        Ok(false)
                    })?;
                }
                Ok(value)
            }

            fn write(
                &self,
                writer: &mut $crate::Writer,
                shape: $crate::Shape,
            ) -> Result<(), $crate::EncodeError> {
                $($crate::declare::write_plain!(
                    writer, shape, self.$field, ($versions), [$($nullable)?], [$($tag)?]
                );)*
                if shape.flexible {
                    let tagged: &[bool] = &[$($crate::declare::is_written!(
                        shape, self.$field, ($versions), [$($default)?], [$($tag)?]
                    ),)*];
                    let count = tagged.iter().map(|written| u32::from(*written)).sum::<u32>();
                    writer.unsigned_varint(count);
                    $($crate::declare::write_tagged!(
                        writer, shape, self.$field, ($versions), [$($nullable)?], [$($default)?], [$($tag)?]
                    );)*
                }
                Ok(())
            }
        }
    )*};
}

macro_rules! default_value {
    () => {
        Default::default()
    };
    ($default:expr) => {
        $default
    };
}

macro_rules! field_shape {
    ($shape:ident, []) => {
        $crate::Shape { nullable: false, ..$shape }
    };
    ($shape:ident, [$nullable:expr]) => {
        $crate::Shape { nullable: ($nullable).contains(&$shape.version), ..$shape }
    };
}

macro_rules! read_plain {
    ($reader:ident, $shape:ident, $value:ident.$field:ident, $versions:expr, $nullable:tt, []) => {
        if ($versions).contains(&$shape.version) {
            let shape = $crate::declare::field_shape!($shape, $nullable);
            $value.$field = $crate::Field::read($reader, shape)?;
        }
    };
    ($reader:ident, $shape:ident, $value:ident.$field:ident, $versions:expr, $nullable:tt, [$tag:literal]) => {};
}

macro_rules! read_tagged {
    ($reader:ident, $read:ident, $shape:ident, $value:ident.$field:ident, $versions:expr, $nullable:tt, []) => {};
    (
        $reader:ident, $read:ident, $shape:ident, $value:ident.$field:ident,
        $versions:expr, $nullable:tt, [$tag:literal]
    ) => {
        if $read == $tag && ($versions).contains(&$shape.version) {
            let shape = $crate::declare::field_shape!($shape, $nullable);
            $value.$field = $crate::Field::read($reader, shape)?;
            return Ok(true);
        }
    };
}

macro_rules! write_plain {
    ($writer:ident, $shape:ident, $self:ident.$field:ident, $versions:expr, $nullable:tt, []) => {
        if ($versions).contains(&$shape.version) {
            let shape = $crate::declare::field_shape!($shape, $nullable);
            $crate::Field::write(&$self.$field, $writer, shape)?;
        }
    };
    ($writer:ident, $shape:ident, $self:ident.$field:ident, $versions:expr, $nullable:tt, [$tag:literal]) => {};
}

macro_rules! is_written {
    ($shape:ident, $self:ident.$field:ident, $versions:expr, $default:tt, []) => {
        false
    };
    ($shape:ident, $self:ident.$field:ident, $versions:expr, [$($default:expr)?], [$tag:literal]) => {
        ($versions).contains(&$shape.version)
            && $crate::declare::differs(&$self.$field, &$crate::declare::default_value!($($default)?))
    };
}

macro_rules! write_tagged {
    ($writer:ident, $shape:ident, $self:ident.$field:ident, $versions:expr, $nullable:tt, $default:tt, []) => {};
    (
        $writer:ident, $shape:ident, $self:ident.$field:ident,
        $versions:expr, $nullable:tt, [$($default:expr)?], [$tag:literal]
    ) => {
        if $crate::declare::is_written!(
            $shape, $self.$field, $versions, [$($default)?], [$tag]
        ) {
            let shape = $crate::declare::field_shape!($shape, $nullable);
            $writer.tagged_field($tag, |writer| $crate::Field::write(&$self.$field, writer, shape))?;
        }
    };
}

/// Both of one type, so that the default's type is inferred from the field.
pub(crate) fn differs<T: PartialEq>(value: &T, default: &T) -> bool {
    value != default
}

pub(crate) use {
    default_value, field_shape, is_written, read_plain, read_tagged, wire_structs, write_plain,
    write_tagged,
};
