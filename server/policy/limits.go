package policy

import "github.com/open-policy-agent/opa/v1/ast"

// The compiler of OPA has no deadline. It takes time that grows with the third power
// of the number of expressions of a rule, which it puts in order, with the square of
// the number of its references and calls, and twice as long for each comprehension
// that contains another.
const (
	maxCompileCost     = 10_000_000 // of all rules that are compiled together; about a second
	costOfRule         = 500        // of each rule and each of its bodies
	maxReferenceLength = 100        // elements of a reference
)

// checkCompileCost reports the first rule with which the compilation of modules takes
// too long.
func checkCompileCost(modules map[string]*ast.Module, reports map[string]*issues) {
	total := 0
	for _, id := range sortedKeys(modules) {
		for _, rule := range modules[id].Rules {
			count := operations{}
			for _, element := range rule.Head.Ref()[1:] {
				count.visit(element, 1)
			}
			count.visit(rule, 1)
			count.reference(rule.Head.Ref(), rule.Head.Location)
			switch total += count.cost(); {
			case count.longReference != nil:
				reports[id].add(count.longReference, "too_complex", "A reference must have at most %d elements.", maxReferenceLength)
				return
			case total > maxCompileCost:
				reports[id].add(rule.Location, "too_complex", "The policy has too many expressions. Use fewer in each rule.")
				return
			}
		}
	}
}

// operations counts what the compiler rewrites and orders in a rule.
type operations struct {
	expressions, references int
	longReference           *ast.Location
}

// reference keeps the position of the first reference that is too long.
func (o *operations) reference(ref ast.Ref, loc *ast.Location) {
	if len(ref) > maxReferenceLength && o.longReference == nil {
		o.longReference = loc
	}
}

func (o *operations) cost() int {
	if o.expressions > 1000 || o.references > 10_000 {
		return 2 * maxCompileCost
	}
	return costOfRule + o.expressions*o.expressions*o.expressions + 10*o.references*o.references
}

// visit counts the operations of a node. What is inside of n comprehensions counts
// 2ⁿ times; weight is this number.
func (o *operations) visit(node any, weight int) {
	weight = min(weight, maxCompileCost)
	var visitor *ast.GenericVisitor
	visitor = ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.Expr:
			o.expressions = min(o.expressions+weight, maxCompileCost)
		case *ast.Every:
			o.visit(x.Domain, weight)
			o.visit(x.Body, 2*weight)
			return true
		case *ast.Term:
			switch value := x.Value.(type) {
			case ast.Call:
				o.references = min(o.references+weight, maxCompileCost)
			case ast.Ref:
				o.references = min(o.references+weight, maxCompileCost)
				o.reference(value, x.Location)
				for _, element := range value {
					visitor.Walk(element)
				}
				return true
			case *ast.ArrayComprehension:
				o.visit(value.Term, 2*weight)
				o.visit(value.Body, 2*weight)
				return true
			case *ast.SetComprehension:
				o.visit(value.Term, 2*weight)
				o.visit(value.Body, 2*weight)
				return true
			case *ast.ObjectComprehension:
				o.visit(value.Key, 2*weight)
				o.visit(value.Value, 2*weight)
				o.visit(value.Body, 2*weight)
				return true
			}
		}
		return false
	})
	visitor.Walk(node)
}
