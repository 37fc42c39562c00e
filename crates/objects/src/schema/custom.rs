//! From a CRD's `openAPIV3Schema` to a tree (structure, defaults, list types) and rules (values).

use serde_json::Value;

use super::cel::Cel;
use super::rules::Rules;
use super::{Builder, Field, ListType, Node, Scalar, Shape, Strategy, Tree, builtin};

/// The compiled schema of one CRD version.
pub(crate) struct Custom {
    pub tree: Tree,
    pub root: u32,
    pub rules: Rules,
    pub cel: Option<Cel>,
    pub status_subresource: bool,
    /// The schema as written, for OpenAPI. Text takes a fraction of the room of values.
    text: Box<str>,
}

impl Custom {
    pub fn compile(schema: &Value, status_subresource: bool) -> Self {
        let mut builder = Builder::default();
        let root = if schema.is_object() {
            node(&mut builder, schema)
        } else {
            Shape::Any { granular: true }.into()
        };
        let root = with_object_fields(&mut builder, root);
        let root = builder.push(root);
        Self {
            root,
            status_subresource,
            rules: Rules::compile(schema),
            cel: Cel::compile(schema),
            tree: builder.finish(),
            text: schema.to_string().into(),
        }
    }

    pub fn openapi(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

impl std::fmt::Debug for Custom {
    /// What was compiled, not what came of it: the text says it all.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Custom").field(&self.text).finish()
    }
}

fn leaf(builder: &mut Builder, scalar: Scalar) -> u32 {
    builder.push(Shape::Scalar(scalar).into())
}

/// A root or embedded object has apiVersion, kind and metadata whatever its schema says.
fn with_object_fields(builder: &mut Builder, mut object: Node) -> Node {
    if matches!(object.shape, Shape::Any { .. }) {
        object.shape = Shape::Object {
            name: "".into(),
            fields: Box::default(),
            atomic: false,
            open: true,
        };
    }
    if let Shape::Object { fields, .. } = &mut object.shape {
        let mut all: Vec<Field> = std::mem::take(fields).into_vec();
        all.retain(|f| !["apiVersion", "kind", "metadata"].contains(&&*f.name));
        let text = leaf(builder, Scalar::String);
        let metadata = builtin::object_meta(builder);
        for (name, node) in [("apiVersion", text), ("kind", text), ("metadata", metadata)] {
            all.push(plain_field(name, node));
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        *fields = all.into();
    }
    object
}

fn plain_field(name: &str, node: u32) -> Field {
    Field {
        name: name.into(),
        node,
        strategy: Strategy::default(),
        merge_key: None,
    }
}

fn node(builder: &mut Builder, schema: &Value) -> Node {
    let shape = shape(builder, schema);
    let mut node = Node {
        shape,
        nullable: schema["nullable"] == true,
        default: schema.get("default").filter(|d| !d.is_null()).cloned(),
    };
    if schema["x-kubernetes-embedded-resource"] == true {
        node = with_object_fields(builder, node);
    }
    node
}

fn shape(builder: &mut Builder, schema: &Value) -> Shape {
    let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
    if schema["x-kubernetes-int-or-string"] == true {
        return Shape::Scalar(Scalar::IntOrString);
    }
    match schema["type"].as_str().unwrap_or_default() {
        "string" => Shape::Scalar(Scalar::String),
        "integer" => Shape::Scalar(Scalar::Int64),
        "number" => Shape::Scalar(Scalar::Float),
        "boolean" => Shape::Scalar(Scalar::Bool),
        "array" => {
            let items = node(builder, &schema["items"]);
            let items = builder.push(items);
            let keys = || {
                let keys = schema["x-kubernetes-list-map-keys"].as_array();
                let keys = keys.into_iter().flatten().filter_map(Value::as_str);
                keys.map(str::to_owned).collect()
            };
            let list = match schema["x-kubernetes-list-type"].as_str() {
                Some("set") => ListType::Set,
                Some("map") => ListType::Map(keys()),
                _ => ListType::Atomic,
            };
            Shape::List { items, list }
        }
        "object" => object(builder, schema, open),
        _ => Shape::Any { granular: open },
    }
}

fn object(builder: &mut Builder, schema: &Value, open: bool) -> Shape {
    let atomic = schema["x-kubernetes-map-type"] == "atomic";
    match &schema["additionalProperties"] {
        values @ Value::Object(_) => {
            let values = node(builder, values);
            let values = builder.push(values);
            return Shape::Map { values, atomic };
        }
        Value::Bool(true) => {
            let values = builder.push(Shape::Any { granular: true }.into());
            return Shape::Map { values, atomic };
        }
        _ => {}
    }
    let properties = schema["properties"].as_object();
    if properties.is_none_or(serde_json::Map::is_empty) && open {
        return Shape::Any { granular: !atomic };
    }
    let mut fields: Vec<Field> = Vec::new();
    for (name, property) in properties.into_iter().flatten() {
        let property = node(builder, property);
        fields.push(plain_field(name, builder.push(property)));
    }
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    Shape::Object {
        name: "".into(),
        fields: fields.into(),
        atomic,
        open,
    }
}
